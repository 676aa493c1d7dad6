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

variable "only_tls" {
  description = "Whether the bucket refuses what does not come over TLS. An endpoint that has none needs false."
  type        = bool
  default     = true
}
