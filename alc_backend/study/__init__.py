"""User studies: the same questions put in several ways, and what each way takes and gets right."""
