package models

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/uptrace/bun"
)

// textTable is a table with texts in which a person's address may occur.
type textTable struct {
	table string
	// key is the primary key, as PostgreSQL and SQLite order it.
	key []string
	// columns are the texts, and at the time of the row. A later row with the address is about the
	// next person who has it.
	columns []string
	at      string
	// about is a condition for rows about the person; empty without one.
	about string
	// also changes copies of a row's texts; nil without any.
	also func(ctx context.Context, tx bun.Tx, key []any, columns []*string) error
}

var textTables = []textTable{
	{"usage_grants", []string{"user_id", "id"}, []string{"granted_by", "reason"}, "created_at", "", nil},
	{"usage_voids", []string{"user_id", "event_id"}, []string{"voided_by", "reason", "last_error"}, "voided_at", "", copyVoidReason},
	{"webhook_endpoints", []string{"id"}, []string{"created_by"}, "created_at", "", nil},
	{"stripe_customers", []string{"id"}, []string{"fault"}, "created_at", "user_id = ?", nil},
	{"stripe_webhook_events", []string{"id"}, []string{"payload", "last_error"}, "received_at", "", nil},
}

// copyVoidReason changes the reason of a void in its event.
func copyVoidReason(ctx context.Context, tx bun.Tx, key []any, columns []*string) error {
	_, err := tx.NewUpdate().Model((*UsageEvent)(nil)).Set("void_reason = ?", *columns[1]).
		Where("user_id = ? AND id = ? AND voided_at IS NOT NULL", key...).Exec(ctx)
	return err
}

var auditTable = textTable{"audit_log", []string{"id"}, []string{"actor", "action", "subject", "detail"}, "at", auditAbout, nil}

// auditAbout is the condition for entries of the audit log that name a person or one of their
// voided events by ID. Its arguments are the person's ID as text, and as an ID.
const auditAbout = "subject = ? OR subject IN (SELECT CAST(v.event_id AS text) FROM usage_voids v WHERE v.user_id = ?)"

// texts replaces the person's addresses in tables that are not about people.
func (p *erasing) texts(ctx context.Context) error {
	for _, t := range textTables {
		var args []any
		if t.about != "" {
			args = []any{p.mark.UserID}
		}
		if err := p.replace(ctx, &t, args, func(columns []*string, about bool) {
			for _, c := range columns {
				if c != nil {
					*c = p.mark.Texts.replaceIn(*c, p.label, about)
				}
			}
		}); err != nil {
			return fmt.Errorf("replace texts in %s: %w", t.table, err)
		}
	}
	return nil
}

// auditLog replaces what identifies the person in the audit log. The reason of a grant or a void of
// theirs is removed, because it may say anything.
func (p *erasing) auditLog(ctx context.Context) error {
	err := p.replace(ctx, &auditTable, []any{p.mark.UserID.String(), p.mark.UserID}, func(columns []*string, about bool) {
		actor, action, subject, detail := columns[0], *columns[1], columns[2], columns[3]
		plain := p.mark.Texts.replaceIn(*detail, p.label, false)
		if about && action == auditGrant || action == auditVoid && (about || plain != *detail) {
			plain = erasedText
		}
		about = about || slices.Contains(p.mark.Texts.Emails, *actor) || slices.Contains(p.mark.Texts.Emails, *subject)
		*detail = p.mark.Texts.replaceIn(plain, p.label, about)
		*actor, *subject = p.mark.Texts.replaceIn(*actor, p.label, false), p.mark.Texts.replaceIn(*subject, p.label, false)
	})
	if err != nil {
		return fmt.Errorf("replace texts in the audit log: %w", err)
	}
	return nil
}

// until returns the time up to which rows with the person's addresses are about them. If another
// person has one of the addresses now, it is when the erased person was cut off. Otherwise it is now,
// because a form that was under way then may have stored something since.
func (p *erasing) until(ctx context.Context) (time.Time, error) {
	now := Now(p.Now)
	taken, err := p.DB.NewSelect().Model((*User)(nil)).Where("email IN (?)", bun.List(p.mark.Texts.Emails)).Exists(ctx)
	if err != nil {
		return now, fmt.Errorf("find who has the addresses of a person: %w", err)
	}
	if taken {
		return p.mark.StartedAt, nil
	}
	return now, nil
}

// replace finds the rows of a table with one of the person's addresses, and those about the person,
// that are old enough. change changes their texts.
func (p *erasing) replace(ctx context.Context, t *textTable, about []any, change func(columns []*string, about bool)) error {
	position := positionFunction(p.DB.Postgres)
	var found []string
	var args []any
	for _, email := range p.mark.Texts.Emails {
		for _, column := range t.columns {
			found, args = append(found, position+"(lower(COALESCE("+column+", '')), ?) > 0"), append(args, strings.ToLower(email))
		}
	}
	isAbout := bun.SafeQuery("1 = 0")
	if t.about != "" {
		isAbout = bun.SafeQuery("("+t.about+")", about...)
		found, args = append(found, "?"), append(args, isAbout)
	}
	if len(found) == 0 {
		return nil
	}
	until, err := p.until(ctx)
	if err != nil {
		return err
	}
	where := "(" + strings.Join(found, " OR ") + ")"
	key := strings.Join(t.key, ", ")
	var after []any
	for {
		var keys [][]any
		q := p.DB.NewSelect().Table(t.table).Where(where, args...).Where("? <= ?", bun.Ident(t.at), until).Order(t.key...).
			Limit(int64(p.stepRows))
		for _, k := range t.key {
			q = q.ColumnExpr("CAST(? AS text)", bun.Ident(k))
		}
		if after != nil {
			q = q.Where("("+key+") > (?)", bun.List(after))
		}
		if err := eachRow(ctx, p.DB, q, func(row scanner) error {
			k := make([]string, len(t.key))
			into, values := make([]any, len(k)), make([]any, len(k))
			for i := range k {
				into[i] = &k[i]
			}
			err := row.Scan(into...)
			for i := range k {
				values[i] = k[i]
			}
			keys = append(keys, values)
			return err
		}); err != nil {
			return err
		}
		if len(keys) == 0 {
			return nil
		}
		after = keys[len(keys)-1]
		if err := p.step(ctx, func(ctx context.Context, tx bun.Tx) error {
			for _, k := range keys {
				if err := replaceRow(ctx, tx, t, k, isAbout, change); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
}

// replaceRow changes the texts of one row.
func replaceRow(
	ctx context.Context, tx bun.Tx, t *textTable, key []any, isAbout any, change func(columns []*string, about bool),
) error {
	is := "(" + strings.Join(t.key, ", ") + ") = (?)"
	q := tx.NewSelect().Table(t.table).Column(t.columns...).ColumnExpr("CASE WHEN ? THEN 1 ELSE 0 END", isAbout).Where(is, bun.List(key))
	before, after := make([]*string, len(t.columns)), make([]*string, len(t.columns))
	var about int
	into := make([]any, 0, len(t.columns)+1)
	for i := range before {
		into = append(into, &before[i])
	}
	found := false
	if err := eachRow(ctx, tx, ForUpdate(q), func(row scanner) error {
		found = true
		return row.Scan(append(into, &about)...)
	}); err != nil || !found {
		return err
	}
	for i, b := range before {
		if b != nil {
			after[i] = new(*b)
		}
	}
	change(after, about == 1)
	update, changed := tx.NewUpdate().Table(t.table).Where(is, bun.List(key)), false
	for i, a := range after {
		if !equal(a, before[i]) {
			update, changed = update.Set("? = ?", bun.Ident(t.columns[i]), *a), true
		}
	}
	if !changed {
		return nil
	}
	if _, err := update.Exec(ctx); err != nil || t.also == nil {
		return err
	}
	return t.also(ctx, tx, key, after)
}

// replaceWord replaces a word in a text, ignoring case. A longer word that has it as a part stays:
// in "bada@example.com", there is no "ada@example.com".
func replaceWord(text, word, with string) string {
	if word == "" || word == with {
		return text
	}
	var b strings.Builder
	end := 0
	for _, at := range regexp.MustCompile("(?i)"+regexp.QuoteMeta(word)).FindAllStringIndex(text, -1) {
		before, _ := utf8.DecodeLastRuneInString(jsonEscape.ReplaceAllString(text[max(0, at[0]-6):at[0]], " "))
		after, size := utf8.DecodeRuneInString(text[at[1]:])
		next, _ := utf8.DecodeRuneInString(text[at[1]+size:])
		if isWordRune(before) || strings.ContainsRune("._%+-", before) || isWordRune(after) || after == '-' || after == '.' && isWordRune(next) {
			continue
		}
		b.WriteString(text[end:at[0]])
		b.WriteString(with)
		end = at[1]
	}
	b.WriteString(text[end:])
	return b.String()
}

// jsonEscape is a character before a word in JSON, such as a line break.
var jsonEscape = regexp.MustCompile(`\\(?:[bfnrt]|u[0-9a-fA-F]{4})$`)

// webhooks removes the text of applied webhooks about the person's Stripe customers. The text of one
// that is not applied yet is removed when it is.
func (p *erasing) webhooks(ctx context.Context) error {
	customers, err := CustomersOf(ctx, p.DB, p.mark.UserID)
	if err != nil || len(customers) == 0 {
		return err
	}
	position := positionFunction(p.DB.Postgres)
	// An event of a type that is not used has no stripe_customer_id.
	about, args := "stripe_customer_id IN (?)", []any{bun.List(customers)}
	for _, c := range customers {
		about, args = about+" OR stripe_customer_id IS NULL AND "+position+"(payload, ?) > 0", append(args, `"`+c+`"`)
	}
	for {
		var ids []string
		if err := p.DB.NewSelect().Model((*StripeWebhookEvent)(nil)).Column("id").Where("("+about+")", args...).
			Where("applied_at IS NOT NULL AND payload <> ?", ErasedPayload).Limit(int64(p.stepRows)).Scan(ctx, &ids); err != nil {
			return fmt.Errorf("find webhooks: %w", err)
		}
		if len(ids) == 0 {
			return nil
		}
		if err := p.step(ctx, func(ctx context.Context, tx bun.Tx) error {
			_, err := tx.NewUpdate().Model((*StripeWebhookEvent)(nil)).Set("payload = ?", ErasedPayload).Where("id IN (?)", bun.List(ids)).Exec(ctx)
			return err
		}); err != nil {
			return fmt.Errorf("remove the text of webhooks: %w", err)
		}
	}
}
