package enforcement

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// readRecord reads recordColumns and heldColumns, starting at the second column.
func readRecord(row [][]byte) models.UsageRecord {
	return models.UsageRecord{
		ID: readInt(row[1]), UserID: uuid.UUID(row[2]), Email: string(row[3]),
		BillingPeriodStart: readTime(row[4]), BillingPeriodEnd: readTime(row[5]), PlanID: models.PlanID(row[6]),
		SuggestionsIncluded: readInt(row[7]), Granted: readInt(row[8]), IncludedBefore: readInt(row[9]),
		SuggestionsUsed: readInt(row[10]), OverageUsed: readInt(row[11]), OverageCents: readInt(row[12]),
		OverageRateCents: readInt(row[13]), PastDue: row[14][0] != 0,
		SpendLimitCents: readOptionalInt(row[15]), MemberLimit: readOptionalInt(row[16]),
		WorkspaceID: readOptionalUUID(row[17]), SlackTeamID: readOptionalText(row[18]), SlackUserID: readOptionalText(row[19]),
		StripeCustomerID: readOptionalText(row[20]), Entitled: row[21][0] != 0,
		OrganizationRecordID: readOptionalInt(row[22]), GrantsExpireAt: readOptionalTime(row[23]),
		MessageLevel: readInt(row[24]), LimitRaises: readInt(row[25]),
		UnitsHeld: readInt(row[26]), OverageHeld: readInt(row[27]), OverageCentsHeld: readInt(row[28]),
		HoldsExpireAt: readOptionalTime(row[29]),
	}
}

// addEvent reads eventColumns.
func (f *found) addEvent(row [][]byte) error {
	e := &models.UsageEvent{
		ID: uuid.UUID(row[0]), UserID: uuid.UUID(row[1]), Email: string(row[2]), Quantity: readInt(row[3]),
		HoldID: readOptionalUUID(row[5]), Message: row[6][0] != 0,
	}
	readFigures(row[7:], &e.Figures)
	if e.HoldID != nil {
		f.settled[*e.HoldID] = e
	} else {
		f.events[keyOf[uuid.UUID]{e.UserID, string(row[4])}] = e
	}
	return nil
}

// addHold reads holdColumns. A hold that was found both by key and by ID is one value.
func (f *found) addHold(row [][]byte) error {
	id := uuid.UUID(row[0])
	h, ok := f.holds[id]
	if !ok {
		h = &models.UsageHold{
			ID: id, UserID: uuid.UUID(row[1]), Email: string(row[2]),
			Quantity: readInt(row[3]), OverageQuantity: readInt(row[4]), OverageCents: readInt(row[5]),
			IdempotencyKey: string(row[6]), State: models.HoldState(row[7]), ExpiresAt: readTime(row[8]),
			CreatedAt: readTime(row[9]), RecordID: readInt(row[10]), Message: row[11][0] != 0,
		}
		readFigures(row[12:], &h.Figures)
		f.holds[id] = h
	}
	f.holdKeys[keyOf[uuid.UUID]{h.UserID, h.IdempotencyKey}] = h
	return nil
}

// addOrganization reads the columns of pgSpends.
func (f *found) addOrganization(row [][]byte) error {
	f.organizations[readInt(row[0])] = newOrganization(models.OrganizationRecord{
		ID: readInt(row[0]), OverageCents: readInt(row[1]), OverageCentsHeld: readInt(row[2]), SpendLimitCents: readOptionalInt(row[3]),
		HoldsExpireAt: readOptionalTime(row[4]),
	})
	return nil
}

func readFigures(row [][]byte, f *models.Figures) {
	*f = models.Figures{
		PlanID: models.PlanID(row[0]), BillingPeriodStart: readTime(row[1]), BillingPeriodEnd: readTime(row[2]),
		UsedAfter: readInt(row[3]), OverageAfter: readInt(row[4]), OverageCentsAfter: readInt(row[5]),
		HeldAfter: readInt(row[6]), OverageHeldAfter: readInt(row[7]), Included: readInt(row[8]),
		OverageRateCents: readInt(row[9]), SpendLimitCents: readOptionalInt(row[10]), MemberLimit: readOptionalInt(row[11]),
		NextRefusal: models.Reason(row[12]),
	}
}

// PostgreSQL's binary formats: integers are big-endian, and times are microseconds since 2000.
// Source: https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-FORMAT-CODES

func readInt(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) } //nolint:gosec // two's complement on both sides

func readXID(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

func readTime(b []byte) time.Time { return time.UnixMicro(readInt(b) + postgresEpoch*1e6).UTC() }

func readOptionalInt(b []byte) *int64 {
	if b == nil {
		return nil
	}
	v := readInt(b)
	return &v
}

func readOptionalText(b []byte) *string {
	if b == nil {
		return nil
	}
	v := string(b)
	return &v
}

func readOptionalTime(b []byte) *time.Time {
	if b == nil {
		return nil
	}
	v := readTime(b)
	return &v
}

func readOptionalUUID(b []byte) *uuid.UUID {
	if b == nil {
		return nil
	}
	v := uuid.UUID(b)
	return &v
}
