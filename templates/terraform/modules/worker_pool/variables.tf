variable "name" {
  description = "Name of the instances and of what belongs to them."
  type        = string
}

variable "ami" {
  description = "AMI ID."
  type        = string
}

variable "root_device" {
  description = "Name of the AMI's root device: RootDeviceName in EC2's DescribeImages."
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

variable "instance_count" {
  description = "Number of workers."
  type        = number
}

variable "user_data" {
  description = "A script for the first boot, or null for none."
  type        = string
  default     = null
}

variable "shutdown_behavior" {
  description = "Whether an instance is stopped or terminated by a `poweroff` of its own: stop or terminate; null is EC2's default, stop."
  type        = string
  default     = null
}

variable "spot" {
  description = "Whether workers are spot instances."
  type        = bool
  default     = false
}

variable "on_demand" {
  description = "How many workers run on demand before any is a spot instance."
  type        = number
  default     = 0
}

variable "instance_types" {
  description = "Every instance type that workers may have, preferred ones first; empty for instance_type alone."
  type        = list(string)
  default     = []
}
