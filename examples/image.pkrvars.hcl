# A small image for the stand-in AWS: bilbo --local image build examples/image.pkrvars.hcl
name         = "demo"
root         = "/tmp/bilbo-image" # the stand-in's machines are processes of this one
requirements = "image.txt"
