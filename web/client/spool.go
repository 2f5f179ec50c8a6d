package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// The kinds of entries.
const (
	kindEvent  = "event"  // goes to POST /v1/events
	kindSettle = "settle" // the settlement of a hold is repeated
)

// entry is usage to record later.
type entry struct {
	Seq            int64     `json:"seq"`
	Kind           string    `json:"kind"`
	Person         Person    `json:"person"`
	Quantity       int64     `json:"quantity"`
	IdempotencyKey string    `json:"idempotency_key"`
	OccurredAt     time.Time `json:"occurred_at"`
	// OfHold means that the key is the key of a hold.
	OfHold bool `json:"hold,omitempty"`
	// HoldID is the hold to settle.
	HoldID string `json:"hold_id,omitempty"`
	// Granted means that the outage policy allowed these units.
	Granted bool `json:"granted,omitempty"`
}

func (e *entry) work() work { return e.Person.work(e.IdempotencyKey) }

// mark is a line about an earlier entry: it is recorded, or Tollgate refuses it for good.
type mark struct {
	Done     int64  `json:"done,omitempty"`
	Rejected int64  `json:"rejected,omitempty"`
	Error    string `json:"error,omitempty"`
}

// compactAt is the size in bytes from which the file is rewritten when everything is recorded.
const compactAt = 1 << 20

// spool is an append-only file of JSON lines. An entry is on disk when append returns. A line that
// was cut off by a crash is removed, because its append has not returned.
type spool struct {
	path   string
	unlock func() error

	mu      sync.Mutex
	file    *os.File
	size    int64
	seq     int64
	broken  error    // set if the end of the file is unknown
	pending []*entry // not recorded yet, in order
	recent  []*entry // recorded usage of holds of the last hour
}

func openSpool(path string) (*spool, error) {
	unlock, err := lock(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("open spool %q: %w", path, err)
	}
	s := &spool{path: path, unlock: unlock}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open spool %q: %w", path, err), unlock())
	}
	return s, nil
}

// load reads the file and writes it again without what is no longer needed.
func (s *spool) load() error {
	content, err := os.ReadFile(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	content = content[:bytes.LastIndexByte(content, '\n')+1]
	number := 0
	for line := range bytes.Lines(content) {
		number++
		var l struct {
			entry
			mark
		}
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("line %d: %w; correct the line, or move the file away", number, err)
		}
		if l.Seq != 0 {
			s.seq = max(s.seq, l.Seq)
			s.pending = append(s.pending, &l.entry)
			continue
		}
		if e := s.remove(l.Done + l.Rejected); e != nil && e.OfHold && l.Done != 0 {
			s.recent = append(s.recent, e)
		}
	}
	return s.rewrite()
}

// remove removes an entry from the pending ones and returns it; nil if it is not there.
func (s *spool) remove(seq int64) *entry {
	i := slices.IndexFunc(s.pending, func(e *entry) bool { return e.Seq == seq })
	if i < 0 {
		return nil
	}
	e := s.pending[i]
	s.pending = slices.Delete(s.pending, i, i+1)
	return e
}

// rewrite replaces the file with one that has only recent and pending entries.
func (s *spool) rewrite() error {
	s.recent = slices.DeleteFunc(s.recent, func(e *entry) bool { return time.Since(e.OccurredAt) > remember })
	var b bytes.Buffer
	lines := json.NewEncoder(&b)
	for _, e := range s.recent {
		if err := errors.Join(lines.Encode(e), lines.Encode(mark{Done: e.Seq})); err != nil {
			return err
		}
	}
	for _, e := range s.pending {
		if err := lines.Encode(e); err != nil {
			return err
		}
	}
	fresh := s.path + ".new"
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600) //nolint:gosec // the caller's own path
	if err != nil {
		return err
	}
	_, err = file.Write(b.Bytes())
	if err = errors.Join(err, file.Sync()); err == nil {
		err = os.Rename(fresh, s.path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(s.path))
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if s.file != nil {
		err = s.file.Close()
	}
	s.file, s.size = file, int64(b.Len())
	return err
}

func syncFolder(path string) error {
	folder, err := os.Open(path) //nolint:gosec // the caller's own path
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// append stores an entry. It returns an error if the entry is not certainly on disk.
func (s *spool) append(e *entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	e.Seq = s.seq
	if err := s.write(e); err != nil {
		return err
	}
	s.pending = append(s.pending, e)
	return nil
}

// write appends lines and flushes them together.
func (s *spool) write(lines ...any) error {
	if s.broken != nil {
		return s.broken
	}
	var b bytes.Buffer
	for _, l := range lines {
		if err := json.NewEncoder(&b).Encode(l); err != nil {
			return err
		}
	}
	_, err := s.file.Write(b.Bytes())
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		// The next line must not follow half a line.
		s.broken = s.file.Truncate(s.size)
		return err
	}
	s.size += int64(b.Len())
	return nil
}

// finish notes that entries are recorded.
func (s *spool) finish(entries []*entry) error {
	if len(entries) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	marks := make([]any, len(entries))
	for i, e := range entries {
		marks[i] = mark{Done: e.Seq}
	}
	if err := s.write(marks...); err != nil {
		return err
	}
	for _, e := range entries {
		if s.remove(e.Seq) != nil && e.OfHold {
			s.recent = append(s.recent, e)
		}
	}
	if len(s.pending) == 0 && s.size > compactAt {
		return s.rewrite()
	}
	return nil
}

// reject notes that Tollgate refuses an entry for good. The entry goes to a file for people.
func (s *spool) reject(e *entry, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	line, err := json.Marshal(struct {
		*entry
		Error string `json:"error"`
	}{e, reason})
	if err != nil {
		return err
	}
	file, err := os.OpenFile(s.path+".rejected", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := s.write(mark{Rejected: e.Seq, Error: reason}); err != nil {
		return err
	}
	s.remove(e.Seq)
	return nil
}

// next returns the entries to record with the next call: one settlement, or up to most events.
func (s *spool) next(most int) (batch []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.pending {
		if len(batch) == most || len(batch) > 0 && (batch[0].Kind == kindSettle || e.Kind == kindSettle) {
			break
		}
		batch = append(batch, e)
	}
	return batch
}

// granted returns the units of a person that the outage policy allowed and that are not recorded
// yet.
func (s *spool) granted(person string) (units int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.pending {
		if e.Granted && e.Person.name() == person {
			units += e.Quantity
		}
	}
	return units
}

func (s *spool) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)
}

func (s *spool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = errors.New("the spool is closed")
	return errors.Join(s.file.Close(), s.unlock())
}
