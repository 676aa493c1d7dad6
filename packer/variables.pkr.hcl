variable "name" {
  type        = string
  default     = "bilbo"
  description = "The image's name in profiles (`image`). Each build creates a new AMI, NAME-TIME."
}

variable "region" {
  type        = string
  default     = "ap-northeast-2"
  description = "The AWS region for the build and the image."
}

variable "instance_type" {
  type        = string
  default     = "t3.large"
  description = "The instance type for the build. For `architecture` arm64 it must be an arm64 type, such as t4g.large."
}

variable "architecture" {
  type        = string
  default     = "x86_64"
  description = "The architecture of the image: x86_64 or arm64."
}

variable "base" {
  type        = string
  default     = "ubuntu"
  description = "The base image: `ubuntu`, `cuda` (AWS's Deep Learning Base AMI: Ubuntu with NVIDIA's driver and CUDA), or the id of an AMI based on Ubuntu or Debian."
}

variable "base_owner" {
  type        = string
  default     = ""
  description = "The account whose images `ubuntu` and `cuda` are looked for in, such as your company's copies; \"\" means Canonical's and AWS's own in the region's partition."
}

variable "subnet" {
  type        = string
  default     = ""
  description = "The subnet of the build machine, which must give public addresses a way to the internet; \"\" means the default VPC's."
}

variable "root_device" {
  type        = string
  default     = "/dev/sda1"
  description = "The base's root device: another base may have /dev/xvda. It matters only with `disk_size`, or base `ubuntu`."
}

variable "encrypted" {
  type        = bool
  default     = true
  description = "Whether the image is encrypted, with the account's default EBS key. An image encrypted with AWS's own key cannot be shared with other accounts."
}

variable "disk_size" {
  type        = number
  default     = 0
  description = "The root volume in GiB; 0 means 16 for `ubuntu`, and the base's own size for other bases."
}

variable "python" {
  type        = string
  default     = "3.12"
  description = "Python's minor version: the base's own, or one from `extra_packages`."
}

variable "requirements" {
  type        = string
  default     = ""
  description = "A pip requirements file that replaces the template's own. Unless all versions are pinned, two builds may differ."
}

variable "extra_requirements" {
  type        = list(string)
  default     = []
  description = "More Python packages, as pip requirements. They must not conflict with `requirements`."
}

variable "extra_packages" {
  type        = list(string)
  default     = []
  description = "More system packages (apt)."
}

variable "ssh_username" {
  type        = string
  default     = "ubuntu"
  description = "The user to log in as, from the base; clusters use the same user."
}

variable "source_cidrs" {
  type        = list(string)
  default     = ["0.0.0.0/0"]
  description = "The networks that may reach the build machine's SSH port. `bilbo image build` sets only your address."
}

variable "root" {
  type        = string
  default     = "/"
  description = "The folder that setup.sh installs into. A folder other than / is for tests, and gets no system packages."
}

variable "endpoint_url" {
  type        = string
  default     = ""
  description = "EC2's endpoint, if it is not AWS's own."
}

variable "ssh_port" {
  type        = number
  default     = 22
  description = "The SSH port of the build machine."
}
