variable "name" {
  type        = string
  default     = "bilbo"
  description = "The image's name in profiles (`image`). Each build of it is an AMI of its own, NAME-TIME."
}

variable "region" {
  type        = string
  default     = "ap-northeast-2"
  description = "The AWS region that the image is built and kept in."
}

variable "instance_type" {
  type        = string
  default     = "t3.large"
  description = "The machine that builds. With an arm64 `architecture` it must be one, such as t4g.large."
}

variable "architecture" {
  type        = string
  default     = "x86_64"
  description = "What the image is for: x86_64 or arm64."
}

variable "base" {
  type        = string
  default     = "ubuntu"
  description = "What to build on: `ubuntu`, `cuda` (AWS's Deep Learning Base AMI: Ubuntu with NVIDIA's driver and CUDA), or the id of an AMI of Ubuntu's or Debian's family."
}

variable "disk_size" {
  type        = number
  default     = 0
  description = "The root volume in GiB; 0 is 16 for `ubuntu`, and for other bases what theirs has."
}

variable "python" {
  type        = string
  default     = "3.12"
  description = "Python's minor version: that of the base, or one that `extra_packages` brings."
}

variable "requirements" {
  type        = string
  default     = ""
  description = "A pip requirements file in place of the template's own. Without full pins, two builds may differ."
}

variable "extra_requirements" {
  type        = list(string)
  default     = []
  description = "Further Python packages, as pip takes them. They may not contradict `requirements`."
}

variable "extra_packages" {
  type        = list(string)
  default     = []
  description = "Further packages of the system (apt)."
}

variable "ssh_username" {
  type        = string
  default     = "ubuntu"
  description = "The user that the base admits; clusters from the image log in as the same."
}

variable "source_cidrs" {
  type        = list(string)
  default     = ["0.0.0.0/0"]
  description = "Who may reach the building machine's SSH. `bilbo image build` names your address alone."
}

variable "root" {
  type        = string
  default     = "/"
  description = "Where setup.sh installs. Another folder than / is for tests, and gets no system packages."
}

variable "endpoint_url" {
  type        = string
  default     = ""
  description = "EC2's address, where it is not AWS's own."
}

variable "ssh_port" {
  type        = number
  default     = 22
  description = "The port of the building machine's SSH."
}
