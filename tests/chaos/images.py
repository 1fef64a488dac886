"""Files that tenants bring: OVAs and ISOs as the field's own programs make them, of bytes that nothing can compress."""

import hashlib
import os
import shutil
import subprocess
import tarfile

from product import Wrong

MIB = 1 << 20
DESCRIPTOR = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References><File ovf:href="{disk}" ovf:id="file1" ovf:size="{size}"/></References>
  <DiskSection><Info>Disks</Info>
    <Disk ovf:capacity="{capacity}" ovf:capacityAllocationUnits="byte" ovf:diskId="vmdisk1" ovf:fileRef="file1"
      ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
  <NetworkSection><Info>Networks</Info><Network ovf:name="NAT"/></NetworkSection>
  <VirtualSystem ovf:id="{name}"><Info>A VM</Info><Name>{name}</Name>
    <OperatingSystemSection ovf:id="94" vmw:osType="ubuntu64Guest"><Info>The guest</Info>
      <Description>Ubuntu Linux (64-bit)</Description></OperatingSystemSection>
    <VirtualHardwareSection><Info>Hardware</Info>
      <System><vssd:ElementName>Hardware</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType></System>
      <Item><rasd:ElementName>1 CPU</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>1 GiB</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>Disk</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:Connection>NAT</rasd:Connection><rasd:ElementName>NIC</rasd:ElementName>
        <rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceSubType>E1000</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType></Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""


class Image:
    """A file to upload, and what it has to be when it arrives."""

    def __init__(self, path, kind):
        self.path, self.kind, self.name = path, kind, path.stem
        self.size = path.stat().st_size
        self.sha256 = sum_of_file(path)


def sum_of_file(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sum_of(blocks):
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def program(*names, package):
    found = next((name for name in names if shutil.which(name)), None)
    if found is None:
        raise Wrong(f"{' or '.join(names)} is missing; on Debian and Ubuntu: apt-get install {package}")
    return found


def fill(path, mib):
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))


def make_ova(folder, name, mib):
    """An OVA with one disk: descriptor, manifest, disk."""
    raw, disk, descriptor, manifest, ova = (folder / f"{name}.{end}" for end in ("raw", "vmdk", "ovf", "mf", "ova"))
    qemu_img = program("qemu-img", package="qemu-utils")
    fill(raw, mib)
    subprocess.run([qemu_img, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, disk], check=True)
    raw.unlink()
    descriptor.write_text(DESCRIPTOR.format(name=name, disk=disk.name, size=disk.stat().st_size, capacity=mib * MIB))
    manifest.write_text("".join(f"SHA256({file.name})= {sum_of_file(file)}\n" for file in (descriptor, disk)))
    with tarfile.open(ova, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member in (descriptor, manifest, disk):
            archive.add(member, member.name)
            member.unlink()
    return Image(ova, "OVA")


def make_iso(folder, name, mib):
    """An ISO 9660 image with one large file."""
    tree, iso = folder / f"{name}.tree", folder / f"{name}.iso"
    tree.mkdir()
    fill(tree / "DATA.BIN", mib)
    maker = program("xorriso", "genisoimage", "mkisofs", package="xorriso")
    command = [maker, "-as", "mkisofs"] if maker == "xorriso" else [maker]
    subprocess.run([*command, "-quiet", "-V", "CHAOS", "-o", iso, tree], check=True, stderr=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return Image(iso, "ISO")
