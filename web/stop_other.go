//go:build !linux

package web

import (
	"errors"
	"net"
	"time"
)

// Elsewhere than on Linux a connection that is made in the moment in which the listener closes is reset; the client may try again.

func dropNewConnections(*net.TCPListener) error { return errors.ErrUnsupported }

func waitingConnections(*net.TCPListener) uint32 { return 0 }

func unfinishedHandshakes(*net.TCPListener) int { return 0 }

func roundTrip(*net.TCPConn) time.Duration { return 0 }

func readable(*net.TCPConn) bool { return false }
