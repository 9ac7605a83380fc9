package main

import (
	"bytes"
	"encoding/binary"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ELF constants that differ between our three machines; see elf(5).
const (
	machineARM   = 40
	machineX8664 = 62
	machineARM64 = 183

	// flagsARM says EABI version 5; neither float ABI is claimed, since the
	// code uses no floating point.
	flagsARM = 0x05000000
)

// hello returns a static Linux executable that prints one line naming its
// platform and exits with status 0. It needs no libc, loader or shell, so an
// image of it really runs on every platform it claims.
func hello(p ocispec.Platform) ([]byte, error) {
	msg := "Hello from the ocisync demo image, " + platformName(p) + "\n"
	switch p.Architecture {
	case "amd64":
		return elf64(machineX8664, codeAMD64(msg)), nil
	case "arm64":
		return elf64(machineARM64, codeARM64(msg)), nil
	case "arm":
		return elf32(machineARM, flagsARM, codeARM(msg)), nil
	}
	return nil, fmt.Errorf("no machine code for platform %s", platformName(p))
}

// codeAMD64 is write(1, msg, len(msg)); exit(0) followed by msg.
func codeAMD64(msg string) []byte {
	var b bytes.Buffer
	b.Write([]byte{0xb8, 1, 0, 0, 0}) // mov eax, 1 (write)
	b.Write([]byte{0xbf, 1, 0, 0, 0}) // mov edi, 1 (stdout)
	b.Write([]byte{0x48, 0x8d, 0x35}) // lea rsi, [rip+16]: past the
	b.Write([]byte{16, 0, 0, 0})      //   16 bytes of code below
	b.WriteByte(0xba)                 // mov edx, len
	put(&b, binary.LittleEndian, uint32(len(msg)))
	b.Write([]byte{0x0f, 0x05})        // syscall
	b.Write([]byte{0xb8, 60, 0, 0, 0}) // mov eax, 60 (exit)
	b.Write([]byte{0x31, 0xff})        // xor edi, edi
	b.Write([]byte{0x0f, 0x05})        // syscall
	b.WriteString(msg)
	return b.Bytes()
}

// codeARM64 is write(1, msg, len(msg)); exit(0) followed by msg.
func codeARM64(msg string) []byte {
	return words([]uint32{
		0xd2800020,                       // mov x0, #1 (stdout)
		0x10000001 | 28/4<<5,             // adr x1, .+28: msg
		0xd2800002 | uint32(len(msg))<<5, // mov x2, #len
		0xd2800008 | 64<<5,               // mov x8, #64 (write)
		0xd4000001,                       // svc #0
		0xd2800000,                       // mov x0, #0
		0xd2800008 | 93<<5,               // mov x8, #93 (exit)
		0xd4000001,                       // svc #0
	}, msg)
}

// codeARM is write(1, msg, len(msg)); exit(0) followed by msg. An immediate
// operand here has eight bits, which bounds msg at 255 bytes.
func codeARM(msg string) []byte {
	return words([]uint32{
		0xe3a00001,                    // mov r0, #1 (stdout)
		0xe28f1000 | 20,               // add r1, pc, #20: msg (pc reads as .+8)
		0xe3a02000 | uint32(len(msg)), // mov r2, #len
		0xe3a07004,                    // mov r7, #4 (write)
		0xef000000,                    // svc #0
		0xe3a00000,                    // mov r0, #0
		0xe3a07001,                    // mov r7, #1 (exit)
		0xef000000,                    // svc #0
	}, msg)
}

// words lays out fixed-width instructions, then msg.
func words(code []uint32, msg string) []byte {
	var b bytes.Buffer
	put(&b, binary.LittleEndian, code)
	b.WriteString(msg)
	return b.Bytes()
}

// A page of 64 KiB is the largest any of our machines uses. A segment aligned
// to it can be mapped by all of their kernels.
const pageAlign = 0x10000

// elf64 wraps code in an executable whose single segment is the whole file,
// mapped read-only and executable, entered right after the headers.
func elf64(machine uint16, code []byte) []byte {
	const ehsize, phsize, base = 64, 56, 0x400000
	size := uint64(ehsize + phsize + len(code))
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 15: 0}) // 64-bit, little endian, version 1
	put(&b, binary.LittleEndian,
		uint16(2), machine, uint32(1), // ET_EXEC
		uint64(base+ehsize+phsize), uint64(ehsize), uint64(0), // entry, program headers, no sections
		uint32(0), uint16(ehsize), uint16(phsize), uint16(1), uint16(0), uint16(0), uint16(0))
	put(&b, binary.LittleEndian,
		uint32(1), uint32(5), // PT_LOAD, R+X
		uint64(0), uint64(base), uint64(base), size, size, uint64(pageAlign))
	b.Write(code)
	return b.Bytes()
}

// elf32 is elf64 for a 32-bit machine.
func elf32(machine uint16, flags uint32, code []byte) []byte {
	const ehsize, phsize, base = 52, 32, 0x10000
	size := uint32(ehsize + phsize + len(code))
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 15: 0}) // 32-bit, little endian, version 1
	put(&b, binary.LittleEndian,
		uint16(2), machine, uint32(1),
		uint32(base+ehsize+phsize), uint32(ehsize), uint32(0),
		flags, uint16(ehsize), uint16(phsize), uint16(1), uint16(0), uint16(0), uint16(0))
	put(&b, binary.LittleEndian,
		uint32(1), uint32(0), uint32(base), uint32(base), size, size, uint32(5), uint32(pageAlign))
	b.Write(code)
	return b.Bytes()
}

// put appends fixed-size values. Writing such values to a Buffer cannot fail.
func put(b *bytes.Buffer, order binary.ByteOrder, values ...any) {
	for _, v := range values {
		if err := binary.Write(b, order, v); err != nil {
			panic(err)
		}
	}
}
