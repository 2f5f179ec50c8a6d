//go:build !linux

package web

import (
	"errors"
	"net"
)

// On systems other than Linux, a connection that is made while the listener closes is reset. The
// client may try again.

func dropNewConnections(*net.TCPListener) error { return errors.ErrUnsupported }

func waitingConnections(*net.TCPListener) uint32 { return 0 }

func unfinishedHandshakes(*net.TCPListener) int { return 0 }

func readable(*net.TCPConn) bool { return false }
