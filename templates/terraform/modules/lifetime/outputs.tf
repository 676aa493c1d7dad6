output "user_data" {
  description = "By user, the script that has a machine power itself off when it is asked to, or when bilbo has not come."
  value       = { for user in var.users : user => "#!/bin/sh\nuser=${user} unreached=${var.unreached}\n${local.install}" }
}
