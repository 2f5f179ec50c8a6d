package web

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// onlySYN is a socket filter (classic BPF) that drops packets with SYN and without ACK. It passes
// the last packet of a handshake, and all packets of connections, which inherit the filter. Byte 13
// of a TCP header has the flags: SYN is 0x02 and ACK is 0x10.
// Source: RFC 9293, 3.1; socket(7), SO_ATTACH_FILTER.
var onlySYN = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: 0x02},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
}

// dropNewConnections makes the kernel ignore new connections. Clients try again a second later; by
// then, the listener is closed, so the connection is refused and the client knows that nothing was
// sent.
func dropNewConnections(l *net.TCPListener) error {
	return control(l, func(fd int) error {
		filter := &unix.SockFprog{Len: uint16(len(onlySYN)), Filter: &onlySYN[0]} //nolint:gosec // a few instructions
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, filter)
	})
}

// waitingConnections returns the number of connections that are made and not yet accepted; 0 if it
// is unknown.
func waitingConnections(l *net.TCPListener) (n uint32) {
	_ = control(l, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			n = info.Unacked // of a listener, this is the backlog
		}
		return err
	})
	return n
}

// unfinishedHandshakes returns the number of connections to the listener that are being made: the
// kernel has answered, and the client's last packet has not arrived. It is 0 if it is unknown.
// Source: proc_pid_net(5), /proc/net/tcp: state 03 is SYN_RECV.
func unfinishedHandshakes(l *net.TCPListener) (n int) {
	port := fmt.Sprintf(":%04X", l.Addr().(*net.TCPAddr).Port)
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		sockets, err := os.ReadFile(name) //nolint:gosec // one of the two above
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(sockets)) {
			// The fields are a number, the local address, the remote address and the state.
			if f := strings.Fields(line); len(f) > 3 && f[3] == "03" && strings.HasSuffix(f[1], port) {
				n++
			}
		}
	}
	return n
}

// readable reports whether unread bytes have arrived.
func readable(c *net.TCPConn) (yes bool) {
	_ = control(c, func(fd int) error {
		n, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		yes = err == nil && n > 0
		return err
	})
	return yes
}

func control(of syscall.Conn, do func(fd int) error) error {
	raw, err := of.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}
