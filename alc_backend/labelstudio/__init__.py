"""What knows Label Studio: its API, and the projects, tasks and regions that it holds."""
