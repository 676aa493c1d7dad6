variable "unreached" {
  description = "After how many seconds a machine powers off to which bilbo has not come."
  type        = number
}

variable "users" {
  description = "The users whom bilbo logs in as."
  type        = set(string)
}
