"""What calls the service in other languages, and the generator of the clients' types and methods."""
