package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Instance UUIDs stay the same from start to start, as those of a real vCenter do.
var templates = []struct {
	name, guest, instanceUUID, annotation string
	cpus                                  int32
	memoryMiB, diskGiB                    int64
	hotAdd                                bool
}{
	{"debian-12", "debian12_64Guest", "5027a1de-0000-4000-8000-00000000d012", "Debian 12 (bookworm), cloud image", 1, 1024, 10, false},
	{"ubuntu-24.04", "ubuntu64Guest", "5027a1de-0000-4000-8000-000000002404", "Ubuntu 24.04 LTS, cloud image", 2, 2048, 20, true},
	{"windows-2022", "windows2019srvNext_64Guest", "5027a1de-0000-4000-8000-000000002022", "Windows Server 2022, sysprepped", 2, 4096, 40, false},
}

// Media lie in the folder "templates" of the datastore; one beside it is not on offer.
var media = []string{"templates/debian-12-netinst.iso", "templates/more/ubuntu-24.04-server.iso", "other/private.iso"}

// populate lays out an inventory: three templates and two media in folders "templates", and an empty folder "virtualstack".
func (w *world) populate(ctx context.Context) error {
	model := w.model
	client, err := vim25.NewClient(ctx, model.Service)
	if err != nil {
		return err
	}
	finder := find.NewFinder(client)
	dc, err := finder.DefaultDatacenter(ctx)
	if err != nil {
		return err
	}
	folders, err := dc.Folders(ctx)
	if err != nil {
		return err
	}
	if _, err := folders.VmFolder.CreateFolder(ctx, "virtualstack"); err != nil {
		return err
	}
	home, err := folders.VmFolder.CreateFolder(ctx, "templates")
	if err != nil {
		return err
	}
	pool, err := finder.SetDatacenter(dc).DefaultResourcePool(ctx)
	if err != nil {
		return err
	}
	network, err := finder.NetworkOrDefault(ctx, "VM Network")
	if err != nil {
		return err
	}
	nic, err := network.EthernetCardBackingInfo(ctx)
	if err != nil {
		return err
	}

	for _, t := range templates {
		var devices object.VirtualDeviceList
		scsi, err := devices.CreateSCSIController("pvscsi")
		if err != nil {
			return err
		}
		disk := devices.CreateDisk(scsi.(types.BaseVirtualController), types.ManagedObjectReference{},
			fmt.Sprintf("[LocalDS_0] %s/disk1.vmdk", t.name))
		disk.CapacityInKB = t.diskGiB << 20
		card, err := devices.CreateEthernetCard("vmxnet3", nic)
		if err != nil {
			return err
		}
		devices = append(devices, scsi, disk, card)
		spec := types.VirtualMachineConfigSpec{
			Name: t.name, InstanceUuid: t.instanceUUID, GuestId: t.guest, Annotation: t.annotation,
			NumCPUs: t.cpus, MemoryMB: t.memoryMiB,
			CpuHotAddEnabled: &t.hotAdd, MemoryHotAddEnabled: &t.hotAdd,
			Files: &types.VirtualMachineFileInfo{VmPathName: "[LocalDS_0]"},
			ExtraConfig: []types.BaseOptionValue{
				// A template that was made from one of our own VMs: clones must not pass for that VM.
				&types.OptionValue{Key: "virtualstack.vmId", Value: "018f0000-0000-7000-8000-000000000000"},
			},
		}
		if spec.DeviceChange, err = devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd); err != nil {
			return err
		}
		task, err := home.CreateVM(ctx, spec, pool, nil)
		if err != nil {
			return err
		}
		info, err := task.WaitForResult(ctx)
		if err != nil {
			return err
		}
		vm := object.NewVirtualMachine(client, info.Result.(types.ManagedObjectReference))
		if err := vm.MarkAsTemplate(ctx); err != nil {
			return err
		}
		model.Map().Put(&source{model.Map().Get(vm.Reference()).(*simulator.VirtualMachine), w})
	}
	store := model.Map().Any("Datastore").(*simulator.Datastore)
	for _, medium := range media {
		file := filepath.Join(store.Summary.Url, medium)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, nil, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// source is a template whose clones behave more as on a real vCenter than the simulator's do.
type source struct {
	*simulator.VirtualMachine
	world *world
}

var addresses atomic.Uint32

// CloneVMTask copies the template's extraConfig, which the simulator forgets, gives the clone an address and tools that
// run, as VMware Tools would report them, and a disk file of its own: the simulator would take the template's, and delete
// it with the clone.
func (s *source) CloneVMTask(ctx *simulator.Context, req *types.CloneVM_Task) soap.HasFault {
	if req.Spec.Config == nil {
		req.Spec.Config = new(types.VirtualMachineConfigSpec)
	}
	number := addresses.Add(1)
	address := fmt.Sprintf("10.%d.%d.%d", 64+number>>16&63, number>>8&255, number&255)
	extra := append([]types.BaseOptionValue{}, s.Config.ExtraConfig...)
	extra = append(extra,
		&types.OptionValue{Key: "SET.guest.ipAddress", Value: address},
		&types.OptionValue{Key: "SET.guest.toolsRunningStatus", Value: toolsRun})
	req.Spec.Config.ExtraConfig = append(extra, req.Spec.Config.ExtraConfig...)
	for _, change := range req.Spec.Config.DeviceChange {
		if disk, is := change.GetVirtualDeviceConfigSpec().Device.(*types.VirtualDisk); is {
			backing := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo()
			backing.FileName = fmt.Sprintf("[LocalDS_0] %[1]s/%[1]s.vmdk", req.Name)
		}
	}
	if custom := req.Spec.Customization; custom != nil {
		if sysprep, is := custom.Identity.(*types.CustomizationSysprep); is {
			name := sysprep.UserData.ComputerName.(*types.CustomizationFixedName).Name
			req.Spec.Config.ExtraConfig = append(req.Spec.Config.ExtraConfig,
				&types.OptionValue{Key: "test.computerName", Value: name})
		}
	}
	plan, _ := s.world.take("CloneVM_Task")
	if plan.delay == 0 {
		plan.delay = s.world.cloneDelay()
	}
	task := s.world.begin(ctx, s, "cloneVM", plan, func() soap.HasFault {
		return s.VirtualMachine.CloneVMTask(ctx, req)
	}, func(result any) {
		clone := ctx.Map.Get(result.(types.ManagedObjectReference)).(*simulator.VirtualMachine)
		clone.Config.CpuHotAddEnabled = s.Config.CpuHotAddEnabled
		clone.Config.MemoryHotAddEnabled = s.Config.MemoryHotAddEnabled
	})
	return &methods.CloneVM_TaskBody{Res: &types.CloneVM_TaskResponse{Returnval: task}}
}

// machine is what a test wants to know of a VM.
type machine struct {
	Name         string `json:"name"`
	InstanceUUID string `json:"instance_uuid"`
	Marker       string `json:"marker"`
	CPUs         int32  `json:"cpus"`
	MemoryMiB    int32  `json:"memory_mib"`
	DiskGiB      int64  `json:"disk_gib"`
	Power        string `json:"power"`
	Medium       string `json:"medium"`
	// Names of all its snapshots.
	Snapshots []string `json:"snapshots"`
	// Its extraConfig, as far as it is text.
	Settings map[string]string `json:"settings"`
	DisksKiB []int64           `json:"disks_kib"`
}

func machines(registry *simulator.Registry) []machine {
	found := []machine{}
	for _, entity := range registry.All("VirtualMachine") {
		if vm, plain := entity.(*simulator.VirtualMachine); plain {
			found = append(found, describe(vm))
		}
	}
	return found
}

// offered gives the templates.
func offered(registry *simulator.Registry) []machine {
	found := []machine{}
	for _, entity := range registry.All("VirtualMachine") {
		if template, is := entity.(*source); is {
			found = append(found, describe(template.VirtualMachine))
		}
	}
	return found
}

func describe(vm *simulator.VirtualMachine) machine {
	m := machine{
		Name: vm.Name, InstanceUUID: vm.Config.InstanceUuid,
		CPUs: vm.Config.Hardware.NumCPU, MemoryMiB: vm.Config.Hardware.MemoryMB,
		Power: string(vm.Runtime.PowerState), Snapshots: []string{}, Settings: map[string]string{}, DisksKiB: []int64{},
	}
	if vm.Snapshot != nil {
		m.Snapshots = names(vm.Snapshot.RootSnapshotList, m.Snapshots)
	}
	for _, option := range vm.Config.ExtraConfig {
		value := option.GetOptionValue()
		if text, is := value.Value.(string); is {
			m.Settings[value.Key] = text
		}
	}
	m.Marker = m.Settings["virtualstack.vmId"]
	for _, device := range vm.Config.Hardware.Device {
		switch device := device.(type) {
		case *types.VirtualDisk:
			m.DisksKiB = append(m.DisksKiB, device.CapacityInKB)
			m.DiskGiB = m.DisksKiB[0] >> 20
		case *types.VirtualCdrom:
			if backing, is := device.Backing.(*types.VirtualCdromIsoBackingInfo); is {
				m.Medium = backing.FileName
			}
		}
	}
	return m
}

func names(trees []types.VirtualMachineSnapshotTree, found []string) []string {
	for _, tree := range trees {
		found = names(tree.ChildSnapshotList, append(found, tree.Name))
	}
	return found
}
