package web

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"tollgate/models"
)

// emailPattern matches anything that may be an email address, including one whose @ is escaped as
// in a URL. It matches too much rather than too little: if a URL's path contains an address, it
// matches the path too.
var emailPattern = regexp.MustCompile(`(?:://)?[^\s"<>()\[\],;:\\@]+(?:@|%40)[^\s"'<>()\[\],;:\\/@]+`)

// redactedEmail replaces each email address in the log.
const redactedEmail = "[email]"

// Redacted returns a handler that replaces every email address and the given secrets in a line before
// the next handler writes it. Errors contain addresses in many places, such as PostgreSQL's details and
// bun's statements, and other servers may repeat a secret, so only this one place is safe.
func Redacted(next slog.Handler, secrets ...string) slog.Handler {
	return redacted{next, models.NewRedactor(secrets...)}
}

type redacted struct {
	next    slog.Handler
	secrets *models.Redactor
}

func (h redacted) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h redacted) Handle(ctx context.Context, line slog.Record) error {
	clean := slog.NewRecord(line.Time, line.Level, h.text(line.Message), line.PC)
	line.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(h.attr(a))
		return true
	})
	return h.next.Handle(ctx, clean)
}

func (h redacted) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = h.attr(a)
	}
	return redacted{h.next.WithAttrs(clean), h.secrets}
}

func (h redacted) WithGroup(name string) slog.Handler {
	return redacted{h.next.WithGroup(name), h.secrets}
}

func (h redacted) attr(a slog.Attr) slog.Attr {
	a.Key = h.text(a.Key)
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(h.text(v.String()))
	case slog.KindGroup:
		group := make([]slog.Attr, 0, len(v.Group()))
		for _, inner := range v.Group() {
			group = append(group, h.attr(inner))
		}
		a.Value = slog.GroupValue(group...)
	case slog.KindAny:
		if err, ok := v.Any().(error); ok {
			a.Value = slog.StringValue(h.text(err.Error()))
		} else if text := fmt.Sprint(v.Any()); h.text(text) != text {
			a.Value = slog.StringValue(h.text(text))
		}
	}
	return a
}

// text removes the secrets first: one of them may contain an @.
func (h redacted) text(text string) string { return redactEmails(h.secrets.Replace(text)) }

// redactEmails replaces the email addresses in a text. A user name before the @ of a URL stays.
func redactEmails(text string) string {
	if !strings.Contains(text, "@") && !strings.Contains(text, "%40") {
		return text
	}
	var b strings.Builder
	end := 0
	for _, at := range emailPattern.FindAllStringIndex(text, -1) {
		b.WriteString(text[end:at[0]])
		if found := text[at[0]:at[1]]; strings.HasPrefix(found, "://") && !strings.Contains(found[3:], "/") {
			b.WriteString(found)
		} else {
			b.WriteString(redactedEmail)
		}
		end = at[1]
	}
	b.WriteString(text[end:])
	return b.String()
}
