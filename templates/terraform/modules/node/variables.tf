variable "name" {
  description = "Name of the instances and of what belongs to them."
  type        = string
}

variable "ami" {
  description = "AMI ID."
  type        = string
}

variable "instance_type" {
  description = "EC2 instance type."
  type        = string
}

variable "key_name" {
  description = "EC2 key pair that SSH logs in with."
  type        = string
}

variable "subnet_id" {
  description = "Subnet of the instances."
  type        = string
}

variable "security_group_ids" {
  description = "Security groups of the instances."
  type        = list(string)
}

variable "volume_size" {
  description = "Size of the root volume in GiB; null keeps the AMI's."
  type        = number
  default     = null
}

variable "iam_instance_profile" {
  description = "Name of the IAM instance profile, or null for none."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
}

variable "user_data" {
  description = "A script for the first boot, or null for none."
  type        = string
  default     = null
}

variable "shutdown_behavior" {
  description = "Whether the instance is stopped or terminated by a `poweroff` of its own: stop or terminate."
  type        = string
  default     = "stop"
}
