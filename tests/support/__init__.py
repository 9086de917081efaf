"""What end-to-end tests share: real programs, a private CA, a deadline for everything."""
