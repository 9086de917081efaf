"""Deploy tests: real systemd hosts on this machine (systemd-nspawn), a network between them, Ansible beside them."""
