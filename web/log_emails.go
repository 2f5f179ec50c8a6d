package web

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
)

// emailPattern finds what may be an email address, also with its @ escaped as in a URL. It takes too much rather than too little:
// of a URL with an address in its path, it takes the path as well.
var emailPattern = regexp.MustCompile(`(?:://)?[^\s"<>()\[\],;:\\@]+(?:@|%40)[^\s"'<>()\[\],;:\\/@]+`)

// redactedEmail stands in the log for each email address.
const redactedEmail = "[email]"

// WithoutEmails returns a handler that replaces every email address in a line before the next handler writes it. Errors hold
// them in many places, such as the details of PostgreSQL and the statements of bun, so this is the one place that is sure.
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

// redactEmails replaces the email addresses of a text. What stands before the @ in a URL is a user's name, and stays.
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
