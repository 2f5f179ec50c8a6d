//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a keep-alive HTTP/1.1 connection. Its request is built once. A call only changes the
// digits of the person and of the idempotency key.
type conn struct {
	fd      int
	request []byte
	// The positions in the request of the person's five digits (in the email and in the Slack ID) and
	// of the key. 0 means that it has none.
	emailAt, slackAt, keyAt int
	answer                  [16 << 10]byte
	filled                  int
	sentAt                  time.Time
}

// The templates that the digits are written into.
const (
	emailShape = "user-00000@example.com"
	slackShape = "U00000"
	slackTeam  = "TBENCH"
	// keyShape looks like a UUID: 16 digits of the scrambled call number, or of a time
	// plus that number, then 8 digits of the series.
	keyShape = "00000000-0000-0000-0000-000000000000"
)

func personEmail(n int) string {
	email := []byte(emailShape)
	putDigits(email[len("user-"):], n+1)
	return string(email)
}

// putDigits writes five decimal digits.
func putDigits(at []byte, n int) {
	for i := 4; i >= 0; i-- {
		at[i] = byte('0' + n%10)
		n /= 10
	}
}

// putKey writes a call's key over the previous one.
func putKey(at []byte, call uint64, series uint32) {
	const digits = "0123456789abcdef"
	place := 0
	put := func(n uint64, count int) {
		for i := count - 1; i >= 0; i-- {
			if place == 8 || place == 13 || place == 18 || place == 23 {
				place++
			}
			at[place] = digits[n>>(4*i)&15]
			place++
		}
	}
	put(call, 16)
	put(uint64(series), 8)
}

func (k *conn) dial(l load) error {
	addr, err := netip.ParseAddrPort(l.Addr)
	if err != nil {
		return err
	}
	if k.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.Connect(k.fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := errors.Join(unix.SetsockoptInt(k.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetNonblock(k.fd, true)); err != nil {
		return fmt.Errorf("socket options: %w", err)
	}
	k.write(l)
	return nil
}

// write builds the request and stores the positions of the digits.
func (k *conn) write(l load) {
	body := `{"email":"` + emailShape + `","quantity":1`
	if l.Introduce {
		body += `,"slack_team_id":"` + slackTeam + `","slack_user_id":"` + slackShape + `"`
	}
	if l.Keyed {
		body += `,"idempotency_key":"` + keyShape + `"`
	}
	body += `}`
	head := "POST " + l.Path + " HTTP/1.1\r\nHost: " + l.Addr + "\r\n"
	if l.Token != "" {
		head += "Authorization: Bearer " + l.Token + "\r\n"
	}
	head += "Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	k.request = []byte(head + body)
	k.emailAt = bytes.Index(k.request, []byte(emailShape)) + len("user-")
	if l.Introduce {
		k.slackAt = bytes.Index(k.request, []byte(slackShape)) + len("U")
	}
	if l.Keyed {
		k.keyAt = bytes.Index(k.request, []byte(keyShape))
	}
}

// send makes a call. The socket's buffer is empty between two calls and much larger than a request,
// so one write is enough.
func (k *conn) send(person int, call uint64, series uint32) error {
	putDigits(k.request[k.emailAt:], person+1)
	if k.slackAt > 0 {
		putDigits(k.request[k.slackAt:], person+1)
	}
	if k.keyAt > 0 {
		putKey(k.request[k.keyAt:], call, series)
	}
	n, err := unix.Write(k.fd, k.request)
	if err != nil {
		return fmt.Errorf("send a call: %w", err)
	}
	if n != len(k.request) {
		return fmt.Errorf("send a call: %d of %d bytes written", n, len(k.request))
	}
	return nil
}

var (
	okLine        = []byte("HTTP/1.1 200 ")
	headEnd       = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
	allowedField  = []byte(`"allowed":true`)
)

// receive reads what has arrived. bodyBytes is the size of the answer's body, or -1 if the answer
// is incomplete. An answer other than a 200 with an allowed decision is an error, which contains
// the answer.
func (k *conn) receive() (bodyBytes int, err error) {
	n, err := unix.Read(k.fd, k.answer[k.filled:])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return -1, nil
	case err != nil:
		return 0, fmt.Errorf("read an answer: %w", err)
	case n == 0:
		return 0, fmt.Errorf("the server closed the connection after %d bytes of an answer", k.filled)
	}
	k.filled += n
	got := k.answer[:k.filled]
	end := bytes.Index(got, headEnd)
	if end < 0 {
		return -1, k.full()
	}
	head, body := got[:end+2], got[end+len(headEnd):]
	at := bytes.Index(head, contentLength)
	if at < 0 {
		return 0, fmt.Errorf("the answer has no Content-Length:\n%s", got)
	}
	size := 0
	for _, digit := range head[at+len(contentLength):] {
		if digit < '0' || digit > '9' {
			break
		}
		size = size*10 + int(digit-'0')
	}
	if len(body) < size {
		return -1, k.full()
	}
	if len(body) > size || !bytes.HasPrefix(head, okLine) || !bytes.Contains(body, allowedField) {
		return 0, fmt.Errorf("the answer is not an allowed decision:\n%s", got)
	}
	k.filled = 0
	return size, nil
}

// full returns an error if the buffer is full.
func (k *conn) full() error {
	if k.filled < len(k.answer) {
		return nil
	}
	return fmt.Errorf("the answer has more than %d bytes:\n%s", len(k.answer), k.answer[:500])
}
