"""The test bed: images, hosts, the switch between them, and the inventory that lets Ansible find them."""
