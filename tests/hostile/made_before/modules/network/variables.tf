variable "instance_types" {
  description = "Every instance type of the cluster; the Availability Zone must offer them all."
  type        = list(string)
}
