variable "cluster" {
  description = "Name of the cluster."
  type        = string
}

variable "name" {
  description = "Name of the security group."
  type        = string
}

variable "subnet_id" {
  description = "A subnet of the cluster; the security group is made in its VPC."
  type        = string
}

variable "ports" {
  description = "TCP ports opened to the allowed addresses, as a map of port to what listens there."
  type        = map(string)
}

variable "ipv4_cidrs" {
  description = "IPv4 address ranges that reach the ports."
  type        = list(string)
  default     = []
}

variable "ipv6_cidrs" {
  description = "IPv6 address ranges that reach the ports."
  type        = list(string)
  default     = []
}

variable "peer_security_group_ids" {
  description = "Security groups of cluster members that do not use this one; they reach all of its ports."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags of the security group."
  type        = map(string)
}
