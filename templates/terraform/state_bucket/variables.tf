variable "bucket" {
  description = "Name of the bucket."
  type        = string
}

variable "region" {
  description = "Region of the bucket."
  type        = string
}

variable "path_style" {
  description = "Whether the bucket's name stands in paths: an endpoint of one's own needs it."
  type        = bool
  default     = false
}
