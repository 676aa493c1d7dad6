# terraform test: no account and no network.

variables {
  unreached = 5400
  users     = ["ubuntu", "ec2-user"]
}

run "has_a_script_for_each_user" {
  command = apply

  assert {
    condition     = toset(keys(output.user_data)) == toset(["ubuntu", "ec2-user"])
    error_message = "Each user has a script."
  }

  assert {
    condition     = startswith(output.user_data["ec2-user"], "#!/bin/sh\nuser=ec2-user unreached=5400\nset -eu\n")
    error_message = "The script is a whole one, and has its settings before it."
  }

  assert {
    condition     = strcontains(output.user_data["ubuntu"], "folder=$${units%/*/*/*}/var/lib/bilbo\n")
    error_message = "The shell's own expansions are the shell's."
  }

  assert {
    condition     = length(output.user_data["ubuntu"]) < 4096
    error_message = "EC2 takes 16 KiB of user data, and bilbo leaves room."
  }
}
