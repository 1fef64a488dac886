//! What is checked: a stable word for programs, what is wrong and what to do for people.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

macro_rules! checks {
    ($($check:ident $word:literal $what:literal, $advice:expr;)*) => {
        /// A check that a file failed. Programs compare [`Check::as_str`]; a word that is there stays.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Check {
            $(#[serde(rename = $word)] $check,)*
        }

        impl Check {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$check),*];

            /// The stable word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$check => $word,)* }
            }

            /// What is wrong.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Self::$check => $what,)* }
            }

            /// What to do.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self { $(Self::$check => $advice,)* }
            }
        }
    };
}

const EXPORT: &str = "export the appliance again";
const UPLOAD: &str = "upload the file again";
const REPACK: &str =
    "pack the OVA again: tar --format=ustar -cf NAME.ova NAME.ovf NAME.mf DISK.vmdk, from within its folder";
const EDIT: &str = "correct the descriptor, make its manifest again, and pack the OVA again";
const DIGEST: &str = "make the manifest again: sha256sum --tag NAME.ovf DISK.vmdk > NAME.mf, and pack the OVA again";
const CONVERT: &str = "convert the disk: qemu-img convert -O vmdk -o subformat=streamOptimized DISK DISK.vmdk";
const MASTER: &str = "make the ISO again, or download it again and compare its checksum";

checks! {
    EmptyFile "EMPTY_FILE" "it has no bytes", UPLOAD;
    TooLarge "TOO_LARGE" "it is larger than files may be", "make it smaller, or ask the operator for a higher limit";
    SizeMismatch "SIZE_MISMATCH" "it does not have the size that it was said to have", UPLOAD;

    NotAnOva "NOT_AN_OVA" "it is not an OVA, which is a tar archive", "upload an OVA: a tar archive of an OVF descriptor and its disks, not compressed";
    TarChecksum "TAR_CHECKSUM" "the checksum of a tar header is wrong", UPLOAD;
    TarHeader "TAR_HEADER" "a tar header cannot be read", REPACK;
    TarTruncated "TAR_TRUNCATED" "the archive ends too early", UPLOAD;
    TarTrailingData "TAR_TRAILING_DATA" "something stands behind the end of the archive", REPACK;
    MemberKind "MEMBER_KIND" "a member of the archive is not a regular file", REPACK;
    MemberName "MEMBER_NAME" "the name of a member is not that of a plain file", REPACK;
    DuplicateMember "DUPLICATE_MEMBER" "a name stands in the archive twice", REPACK;
    TooManyMembers "TOO_MANY_MEMBERS" "the archive has too many members", "take out what is no disk, and pack the OVA again";
    MemberOrder "MEMBER_ORDER" "a member does not stand where it must", REPACK;
    UnreferencedMember "UNREFERENCED_MEMBER" "the descriptor names no such file", "name it under References, or take it out of the OVA";
    MissingMember "MISSING_MEMBER" "a file that the descriptor names is not in the archive", "add the file and pack the OVA again, or export the appliance again";
    MemberSize "MEMBER_SIZE" "a file does not have the size that the descriptor says", EXPORT;
    ChunkMissing "CHUNK_MISSING" "a chunk of a file is missing or stands in the wrong place", "add the chunks one behind the other, NAME.000000000 first";
    ChunkSize "CHUNK_SIZE" "a chunk does not have the size that the descriptor says", EXPORT;
    Certificate "CERTIFICATE" "the certificate is not one of an OVA", REPACK;

    DescriptorSize "DESCRIPTOR_SIZE" "the descriptor is too long", "take out icons and other files that stand in the descriptor itself";
    DescriptorEncoding "DESCRIPTOR_ENCODING" "the descriptor is not UTF-8", "save the descriptor as UTF-8";
    DescriptorDtd "DESCRIPTOR_DTD" "the descriptor has a document type", "take the DOCTYPE and its entities out";
    DescriptorXml "DESCRIPTOR_XML" "the descriptor is not well-formed XML", EDIT;
    DescriptorBounds "DESCRIPTOR_BOUNDS" "the descriptor has more in it than one may have", EDIT;
    OvfNamespace "OVF_NAMESPACE" "the descriptor is not of OVF 1 or 2", "export the appliance as OVF 1.0 or newer";
    SystemCount "SYSTEM_COUNT" "the descriptor does not describe exactly one VM", "export one VM alone";
    SystemCollection "SYSTEM_COLLECTION" "the descriptor describes a collection of VMs (vApp)", "export one VM alone";
    NoHardwareSection "NO_HARDWARE_SECTION" "the VM has no VirtualHardwareSection", EXPORT;
    UnknownSection "UNKNOWN_SECTION" "a section is required that is not known here", "take the section out, or mark it ovf:required=\"false\"";
    FileReference "FILE_REFERENCE" "a File of References is wrong", EDIT;
    FileCompression "FILE_COMPRESSION" "the compression of a file is not known", "leave files uncompressed, or use gzip";
    DiskReference "DISK_REFERENCE" "a disk or its file is not there", EDIT;
    DiskCapacity "DISK_CAPACITY" "the capacity of a Disk cannot be read", EDIT;
    DiskProperty "DISK_PROPERTY" "the capacity of a Disk depends on a property", "write the capacity as a number";
    CapacityLimit "CAPACITY_LIMIT" "a disk is larger than disks may be", "export the appliance with a smaller disk";
    TooManyDisks "TOO_MANY_DISKS" "the VM has too many disks", "export the appliance with fewer disks";
    DeltaDisk "DELTA_DISK" "a Disk holds only what differs from another", "remove the snapshots of the VM and export it again";
    CpuCount "CPU_COUNT" "the number of CPUs cannot be used", EDIT;
    MemorySize "MEMORY_SIZE" "the size of memory cannot be used", EDIT;
    HardwareItem "HARDWARE_ITEM" "an item of the hardware is wrong", EDIT;
    HardwareParent "HARDWARE_PARENT" "a disk hangs on no known controller", EDIT;
    GuestId "GUEST_ID" "the guest operating system is not known", "set vmw:osType of OperatingSystemSection, e.g. \"otherGuest64\"";

    ManifestSyntax "MANIFEST_SYNTAX" "a line of the manifest cannot be read", DIGEST;
    ManifestAlgorithm "MANIFEST_ALGORITHM" "an algorithm of the manifest is not known", DIGEST;
    ManifestDuplicate "MANIFEST_DUPLICATE" "the manifest names a file twice", DIGEST;
    ManifestUncovered "MANIFEST_UNCOVERED" "the manifest does not name the file", DIGEST;
    ManifestUnknownFile "MANIFEST_UNKNOWN_FILE" "the manifest names a file that is not there", DIGEST;
    DigestMismatch "DIGEST_MISMATCH" "the file is not what the manifest says", "upload the file again; if the descriptor was edited, make the manifest again";

    DiskFormat "DISK_FORMAT" "a disk is not a streamOptimized VMDK", CONVERT;
    VmdkHeader "VMDK_HEADER" "the header of the disk is wrong", CONVERT;
    VmdkDescriptor "VMDK_DESCRIPTOR" "the text in the disk does not say streamOptimized", CONVERT;
    VmdkCapacity "VMDK_CAPACITY" "the disk does not have the capacity that the descriptor says", EXPORT;
    VmdkMarker "VMDK_MARKER" "something unknown stands where a grain or a table should", EXPORT;
    GrainPosition "GRAIN_POSITION" "a grain stands where none can be", EXPORT;
    GrainData "GRAIN_DATA" "a grain cannot be inflated", EXPORT;
    GrainBomb "GRAIN_BOMB" "a grain inflates to more than a grain", EXPORT;
    GrainTable "GRAIN_TABLE" "a grain table does not point to the grains of the disk", EXPORT;
    GrainDirectory "GRAIN_DIRECTORY" "the grain directory does not point to the grain tables of the disk", EXPORT;
    VmdkFooter "VMDK_FOOTER" "the footer of the disk does not fit its header", EXPORT;
    VmdkTruncated "VMDK_TRUNCATED" "the disk ends too early", EXPORT;
    VmdkTrailingData "VMDK_TRAILING_DATA" "something stands behind the end of the disk", EXPORT;
    GzipData "GZIP_DATA" "the file cannot be unpacked", EXPORT;
    GzipBomb "GZIP_BOMB" "the file unpacks to more than its disk can need", EXPORT;

    NotAnIso "NOT_AN_ISO" "it is not an ISO", "upload an ISO 9660 image";
    IsoSize "ISO_SIZE" "it does not consist of whole sectors", MASTER;
    IsoTruncated "ISO_TRUNCATED" "it ends too early", MASTER;
    IsoDescriptor "ISO_DESCRIPTOR" "a volume descriptor is wrong", MASTER;
    IsoBothEndian "ISO_BOTH_ENDIAN" "the two copies of a number differ", MASTER;
    IsoVolumeSize "ISO_VOLUME_SIZE" "the volume is larger than the file", MASTER;
    IsoRoot "ISO_ROOT" "the root directory is wrong", MASTER;
    UdfOnly "UDF_ONLY" "it has UDF but no ISO 9660", "make the ISO again with both: xorriso -as mkisofs, or oscdimg -u1";
    BootCatalog "BOOT_CATALOG" "the boot catalog is wrong", MASTER;
    BootImage "BOOT_IMAGE" "what is to be booted lies outside of the file", MASTER;
}

impl Display for Check {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_are_stable_and_differ() {
        let words: HashSet<_> = Check::ALL.iter().map(|check| check.as_str()).collect();
        assert_eq!(words.len(), Check::ALL.len());
        for check in Check::ALL {
            assert!(check.as_str().chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{check}");
            assert_eq!(serde_json::to_value(check).expect("JSON"), check.as_str());
        }
    }
}
