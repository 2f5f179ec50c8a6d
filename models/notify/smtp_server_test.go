package notify

import (
	"bufio"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"
)

// smtpServer is a mail server that accepts everything, unless a test says otherwise.
type smtpServer struct {
	*arrivals // the mail, including its envelope
	listener  net.Listener

	mu sync.Mutex
	// replies replace the reply to a command: "RCPT", "DATA", "." (the mail's end), "QUIT". An empty one
	// closes the connection instead. before is called before the reply to a mail's end.
	replies map[string]string
	before  func()
}

func newSMTPServer(t *testing.T) *smtpServer {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	s := &smtpServer{arrivals: newArrivals(), listener: l}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		open.Wait()
	})
	return s
}

func (s *smtpServer) address() *SMTP {
	to := s.listener.Addr().(*net.TCPAddr)
	return &SMTP{Host: to.IP.String(), Port: to.Port, From: &mail.Address{Name: "Tollgate", Address: "tollgate@example.com"}}
}

func (s *smtpServer) reply(command, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replies = map[string]string{command: text}
}

func (s *smtpServer) hold(before func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

func (s *smtpServer) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(conn)
	// answer sends a reply; it returns false if the connection is closed instead.
	answer := func(command, normal string) bool {
		s.mu.Lock()
		text, replaced := s.replies[command]
		s.mu.Unlock()
		if !replaced {
			text = normal
		}
		if text == "" {
			return false
		}
		_, err := conn.Write([]byte(text + "\r\n"))
		return err == nil
	}
	if !answer("CONNECT", "220 mail.example.com") {
		return
	}
	var envelope string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		command, _, _ := strings.Cut(line, " ")
		command, _, _ = strings.Cut(command, ":")
		switch command = strings.ToUpper(command); command {
		case "EHLO":
			if !answer(command, "250-mail.example.com\r\n250 8BITMIME") {
				return
			}
		case "RCPT":
			envelope = line
			if !answer(command, "250 ok") {
				return
			}
		case "DATA":
			if !answer(command, "354 go on") {
				return
			}
			s.mu.Lock()
			refused := strings.HasPrefix(s.replies[command], "4") || strings.HasPrefix(s.replies[command], "5")
			s.mu.Unlock()
			if refused {
				continue
			}
			var text strings.Builder
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return // an interrupted mail is dropped
				}
				if line == ".\r\n" {
					break
				}
				text.WriteString(strings.TrimPrefix(line, ".")) // a dot at the beginning is doubled
			}
			s.add(envelope + "\n" + text.String())
			s.mu.Lock()
			before := s.before
			s.mu.Unlock()
			if before != nil {
				before()
			}
			if !answer(".", "250 accepted") {
				return
			}
		case "QUIT":
			answer(command, "221 bye")
			return
		default:
			if !answer(command, "250 ok") {
				return
			}
		}
	}
}
