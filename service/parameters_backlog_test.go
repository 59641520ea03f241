package service_test

import (
	"net"
	"os"
	"syscall"
)

// smallBacklog listens at an IPv4 address with the shortest queue that there is.
func smallBacklog(address string) (release func(), err error) {
	tcp, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return nil, err
	}
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	to := &syscall.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}
	err = os.NewSyscallError("bind", syscall.Bind(socket, to))
	if err == nil {
		err = os.NewSyscallError("listen", syscall.Listen(socket, 0))
	}
	if err != nil {
		_ = syscall.Close(socket)
		return nil, err
	}
	return func() { _ = syscall.Close(socket) }, nil
}
