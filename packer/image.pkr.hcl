# An image with everything that a bilbo cluster runs. Build it with `bilbo image build`, or with Packer:
#
#   packer init plugins     # Packer 1.7 and later; 1.6 has its plugins built in
#   packer build -var region=eu-west-1 .

locals {
  # Packer 1.6 resolves file() from the template's folder, but a provisioner's paths from the current one.
  here         = abspath(path.root)
  requirements = abspath(var.requirements != "" ? var.requirements : "${path.root}/requirements.txt")

  # Canonical's account differs in each partition (documentation.ubuntu.com/aws, "Find Ubuntu images").
  partition = substr(var.region, 0, 3) == "cn-" ? "aws-cn" : substr(var.region, 0, 7) == "us-gov-" ? "aws-us-gov" : "aws"
  canonical = { aws = "099720109477", aws-cn = "837727238323", aws-us-gov = "513442679011" }

  # Canonical's account, and that of AWS's Deep Learning AMIs.
  bases = {
    ubuntu = { owner = local.canonical[local.partition], name = "ubuntu/images/hvm-ssd*/ubuntu-noble-24.04-*-server-*" }
    cuda   = { owner = local.partition == "aws" ? "898082745236" : "amazon", name = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) *" }
  }
  filters   = [for name, base in local.bases : base if name == var.base]
  given_ami = length(local.filters) == 0 ? var.base : ""
  disk_size = var.disk_size > 0 ? var.disk_size : 16
  disks     = var.disk_size > 0 || var.base == "ubuntu" ? [local.disk_size] : []

  # Packages whose versions must be the same on both ends of a connection, or nearly so.
  told = [
    "cloudpickle", "dask", "distributed", "lz4", "msgpack", "numpy", "pandas", "pyarrow", "s3fs",
  ]
  lines = split("\n", file(local.requirements))
  pins = [
    for line in local.lines : split("==", trimspace(split(";", split("#", line)[0])[0]))
    if length(split("==", split(";", split("#", line)[0])[0])) == 2
  ]
  versions = { for pin in local.pins : "bilbo:version:${pin[0]}" => pin[1] if contains(local.told, pin[0]) }

  # Everything that determines the image's content.
  recipe = substr(sha256(jsonencode([
    local.lines, file("${local.here}/setup.sh"), var.base, var.architecture, var.python,
    var.extra_requirements, var.extra_packages,
  ])), 0, 16)
  tags = {
    "Name"         = var.name
    "bilbo:image"  = var.name
    "bilbo:recipe" = local.recipe
    "bilbo:python" = var.python
    "bilbo:base"   = var.base
  }
}

source "amazon-ebs" "image" {
  ami_name        = "${var.name}-{{ timestamp }}"
  ami_description = "bilbo's image ${var.name}: Python ${var.python}, recipe ${local.recipe}"
  tags            = merge(local.tags, local.versions)
  snapshot_tags   = local.tags

  source_ami = local.given_ami
  dynamic "source_ami_filter" {
    for_each = local.filters
    content {
      filters = {
        name                = source_ami_filter.value.name
        architecture        = var.architecture
        root-device-type    = "ebs"
        virtualization-type = "hvm"
      }
      owners      = [var.base_owner != "" ? var.base_owner : source_ami_filter.value.owner]
      most_recent = true
    }
  }

  region                      = var.region
  custom_endpoint_ec2         = var.endpoint_url
  instance_type               = var.instance_type
  subnet_id                   = var.subnet
  associate_public_ip_address = true
  run_tags                    = { "Name" = "Packer builds ${var.name}", "bilbo:image" = var.name }
  run_volume_tags             = { "Name" = "Packer builds ${var.name}", "bilbo:image" = var.name }

  # Where the machine's disk is encrypted, so is its snapshot; otherwise Packer copies the image.
  encrypt_boot = var.encrypted && length(local.disks) == 0

  dynamic "launch_block_device_mappings" {
    for_each = local.disks
    content {
      device_name           = var.root_device
      volume_size           = launch_block_device_mappings.value
      volume_type           = "gp3"
      iops                  = 3000
      throughput            = 125
      delete_on_termination = true
      encrypted             = var.encrypted
    }
  }

  # IMDSv2 is required here where Packer can; see bilbo/images/packer.py.

  ssh_username                          = var.ssh_username
  ssh_port                              = var.ssh_port
  temporary_security_group_source_cidrs = var.source_cidrs
}

build {
  sources = ["source.amazon-ebs.image"]

  provisioner "file" {
    source      = local.requirements
    destination = "bilbo-requirements.txt"
  }

  provisioner "shell" {
    script          = "${local.here}/setup.sh"
    remote_folder   = "."
    execute_command = "{{ .Vars }} bash '{{ .Path }}'"
    environment_vars = [
      "BILBO_ROOT=${var.root}",
      "BILBO_PYTHON=${var.python}",
      "BILBO_PACKAGES=${join(" ", var.extra_packages)}",
      "BILBO_EXTRA=${join("\n", var.extra_requirements)}",
    ]
  }

  provisioner "shell" {
    remote_folder = "."
    inline = [
      "rm -f bilbo-requirements.txt",
      "# Packer's temporary key would open every machine made from the image.",
      "if [ -f ~/.ssh/authorized_keys ]; then sed -i '/ packer_/d' ~/.ssh/authorized_keys; fi",
    ]
  }
}
