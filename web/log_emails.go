package web

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
)

// emailPattern matches anything that may be an email address, including one whose @ is escaped as
// in a URL. It matches too much rather than too little: if a URL's path contains an address, it
// matches the path too.
var emailPattern = regexp.MustCompile(`(?:://)?[^\s"<>()\[\],;:\\@]+(?:@|%40)[^\s"'<>()\[\],;:\\/@]+`)

// redactedEmail replaces each email address in the log.
const redactedEmail = "[email]"

// WithoutEmails returns a handler that replaces every email address in a line before the next
// handler writes it. Errors contain addresses in many places, such as PostgreSQL's details and
// bun's statements, so only this one place is safe.
func WithoutEmails(next slog.Handler) slog.Handler { return emailless{next} }

type emailless struct{ next slog.Handler }

func (h emailless) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h emailless) Handle(ctx context.Context, line slog.Record) error {
	clean := slog.NewRecord(line.Time, line.Level, redactEmails(line.Message), line.PC)
	line.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(redactAttr(a))
		return true
	})
	return h.next.Handle(ctx, clean)
}

func (h emailless) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = redactAttr(a)
	}
	return emailless{h.next.WithAttrs(clean)}
}

func (h emailless) WithGroup(name string) slog.Handler { return emailless{h.next.WithGroup(name)} }

func redactAttr(a slog.Attr) slog.Attr {
	a.Key = redactEmails(a.Key)
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(redactEmails(v.String()))
	case slog.KindGroup:
		group := make([]slog.Attr, 0, len(v.Group()))
		for _, inner := range v.Group() {
			group = append(group, redactAttr(inner))
		}
		a.Value = slog.GroupValue(group...)
	case slog.KindAny:
		if err, ok := v.Any().(error); ok {
			a.Value = slog.StringValue(redactEmails(err.Error()))
		} else if text := fmt.Sprint(v.Any()); emailPattern.MatchString(text) {
			a.Value = slog.StringValue(redactEmails(text))
		}
	}
	return a
}

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
