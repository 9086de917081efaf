"""The lab: a server and agents in network namespaces of their own, and a user-space network between them."""
