package enforcement

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// params writes arrays in PostgreSQL's binary form into one buffer that is used again, as going through a reflecting
// encoder for each of a group's thousands of values would cost more than the group's decisions.
// Source: https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/arrayfuncs.c, array_recv
type params struct {
	buf []byte
}

// The object ids of the element types (pg_type.dat).
const (
	oidInt8        = 20
	oidText        = 25
	oidXID         = 28
	oidTimestamptz = 1184
	oidUUID        = 2950
)

func (p *params) reset() { p.buf = p.buf[:0] }

// list is the values of one statement.
func (p *params) list(values ...[]byte) [][]byte { return values }

func (p *params) array(oid uint32, n int, each func(i int)) []byte {
	start := len(p.buf)
	be := binary.BigEndian
	if n == 0 {
		p.buf = be.AppendUint32(be.AppendUint32(be.AppendUint32(p.buf, 0), 0), oid)
		return p.buf[start:len(p.buf):len(p.buf)]
	}
	p.buf = be.AppendUint32(p.buf, 1)         // dimensions
	p.buf = be.AppendUint32(p.buf, 1)         // may hold nulls
	p.buf = be.AppendUint32(p.buf, oid)       //
	p.buf = be.AppendUint32(p.buf, uint32(n)) //nolint:gosec // a group's size
	p.buf = be.AppendUint32(p.buf, 1)         // lower bound
	for i := range n {
		each(i)
	}
	return p.buf[start:len(p.buf):len(p.buf)]
}

func (p *params) null() { p.buf = binary.BigEndian.AppendUint32(p.buf, 0xffffffff) }

func (p *params) int(v int64) {
	p.buf = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(p.buf, 8), uint64(v)) //nolint:gosec // two's complement on both sides
}

func (p *params) text(s string) {
	p.buf = append(binary.BigEndian.AppendUint32(p.buf, uint32(len(s))), s...) //nolint:gosec // a text of at most some kilobytes
}

func micros(t time.Time) int64 { return t.UnixMicro() - postgresEpoch*1e6 }

// time is a single time and not an array.
func (p *params) time(t time.Time) []byte { return p.single(micros(t)) }

func (p *params) ints(n int, at func(int) int64) []byte {
	return p.array(oidInt8, n, func(i int) { p.int(at(i)) })
}

// single is one integer and not an array.
func (p *params) single(v int64) []byte {
	start := len(p.buf)
	p.buf = binary.BigEndian.AppendUint64(p.buf, uint64(v)) //nolint:gosec // two's complement on both sides
	return p.buf[start:len(p.buf):len(p.buf)]
}

// versions are transaction ids.
func (p *params) versions(n int, at func(int) uint32) []byte {
	return p.array(oidXID, n, func(i int) {
		p.buf = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(p.buf, 4), at(i))
	})
}

func (p *params) optionalInts(n int, at func(int) *int64) []byte {
	return p.array(oidInt8, n, func(i int) {
		if v := at(i); v != nil {
			p.int(*v)
		} else {
			p.null()
		}
	})
}

func (p *params) texts(n int, at func(int) string) []byte {
	return p.array(oidText, n, func(i int) { p.text(at(i)) })
}

func (p *params) optionalTexts(n int, at func(int) *string) []byte {
	return p.array(oidText, n, func(i int) {
		if v := at(i); v != nil {
			p.text(*v)
		} else {
			p.null()
		}
	})
}

func (p *params) times(n int, at func(int) time.Time) []byte {
	return p.array(oidTimestamptz, n, func(i int) { p.int(micros(at(i))) })
}

// wants are two arrays, of emails and of instants.
func (p *params) wants(w []models.Want) [][]byte {
	return p.list(p.texts(len(w), func(i int) string { return w[i].Email }), p.times(len(w), func(i int) time.Time { return w[i].At }))
}

func (p *params) optionalTimes(n int, at func(int) *time.Time) []byte {
	return p.array(oidTimestamptz, n, func(i int) {
		if v := at(i); v != nil {
			p.int(micros(*v))
		} else {
			p.null()
		}
	})
}

func (p *params) uuids(n int, at func(int) *uuid.UUID) []byte {
	return p.array(oidUUID, n, func(i int) {
		if v := at(i); v != nil {
			p.buf = append(binary.BigEndian.AppendUint32(p.buf, 16), v[:]...)
		} else {
			p.null()
		}
	})
}
