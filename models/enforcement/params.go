package enforcement

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// params writes arrays in PostgreSQL's binary format into one buffer, which it reuses. An encoder
// that uses reflection for each of a group's thousands of values would cost more than the group's
// decisions. Source: array_recv in
// https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/arrayfuncs.c
type params struct {
	buf []byte
}

// The object IDs of the element types (pg_type.dat).
const (
	oidBool        = 16
	oidInt8        = 20
	oidText        = 25
	oidXID         = 28
	oidTimestamptz = 1184
	oidUUID        = 2950
)

func (p *params) reset() { p.buf = p.buf[:0] }

func (p *params) array(oid uint32, n int, each func(i int)) []byte {
	start := len(p.buf)
	be := binary.BigEndian
	if n == 0 {
		p.buf = be.AppendUint32(be.AppendUint32(be.AppendUint32(p.buf, 0), 0), oid)
		return p.buf[start:len(p.buf):len(p.buf)]
	}
	p.buf = be.AppendUint32(p.buf, 1)         // dimensions
	p.buf = be.AppendUint32(p.buf, 1)         // may contain nulls
	p.buf = be.AppendUint32(p.buf, oid)       // element type
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

func (p *params) bools(n int, each func(i int) bool) []byte {
	return p.array(oidBool, n, func(i int) {
		v := byte(0)
		if each(i) {
			v = 1
		}
		p.buf = append(binary.BigEndian.AppendUint32(p.buf, 1), v)
	})
}

func micros(t time.Time) int64 { return t.UnixMicro() - postgresEpoch*1e6 }

// time returns a single time, not an array.
func (p *params) time(t time.Time) []byte { return p.single(micros(t)) }

func (p *params) ints(n int, at func(int) int64) []byte {
	return p.array(oidInt8, n, func(i int) { p.int(at(i)) })
}

// single returns a single integer, not an array.
func (p *params) single(v int64) []byte {
	start := len(p.buf)
	p.buf = binary.BigEndian.AppendUint64(p.buf, uint64(v)) //nolint:gosec // two's complement on both sides
	return p.buf[start:len(p.buf):len(p.buf)]
}

// versions returns an array of transaction IDs.
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

// people returns two arrays: user IDs and emails. A user ID is null if only the email is known.
func (p *params) people(n int, at func(int) *models.RecordKey) [][]byte {
	return [][]byte{
		p.uuids(n, func(i int) *uuid.UUID {
			if w := at(i); w.UserID != uuid.Nil {
				return &w.UserID
			}
			return nil
		}), p.texts(n, func(i int) string { return at(i).Email }),
	}
}

// wants returns the arrays of people and an array of times.
func (p *params) wants(w []models.RecordKey) [][]byte {
	return append(p.people(len(w), func(i int) *models.RecordKey { return &w[i] }),
		p.times(len(w), func(i int) time.Time { return w[i].At }))
}

// keys returns the arrays of people and an array of their keys.
func (p *params) keys(k []keyOf[models.RecordKey]) [][]byte {
	return append(p.people(len(k), func(i int) *models.RecordKey { return &k[i].person }),
		p.texts(len(k), func(i int) string { return k[i].key }))
}

// holds returns two arrays: user IDs and hold IDs.
func (p *params) holds(h []holdOf) [][]byte {
	return [][]byte{
		p.uuids(len(h), func(i int) *uuid.UUID { return &h[i].user }), p.uuids(len(h), func(i int) *uuid.UUID { return &h[i].id }),
	}
}

// figures returns one array for each column of figures.
func (p *params) figures(n int, at func(int) *models.Figures) [][]byte {
	return [][]byte{
		p.texts(n, func(i int) string { return string(at(i).PlanID) }),
		p.times(n, func(i int) time.Time { return at(i).BillingPeriodStart }),
		p.times(n, func(i int) time.Time { return at(i).BillingPeriodEnd }),
		p.ints(n, func(i int) int64 { return at(i).UsedAfter }),
		p.ints(n, func(i int) int64 { return at(i).OverageAfter }),
		p.ints(n, func(i int) int64 { return at(i).OverageCentsAfter }),
		p.ints(n, func(i int) int64 { return at(i).HeldAfter }),
		p.ints(n, func(i int) int64 { return at(i).OverageHeldAfter }),
		p.ints(n, func(i int) int64 { return at(i).Included }),
		p.ints(n, func(i int) int64 { return at(i).OverageRateCents }),
		p.optionalInts(n, func(i int) *int64 { return at(i).SpendLimitCents }),
		p.optionalInts(n, func(i int) *int64 { return at(i).MemberLimit }),
		p.texts(n, func(i int) string { return string(at(i).NextRefusal) }),
	}
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
