package web

import (
	"fmt"
	"io"
	"log/slog"
)

// LogFormat is the format of log lines: "json" or "text".
type LogFormat string

// UnmarshalText reads a log format from a flag.
func (f *LogFormat) UnmarshalText(text []byte) error {
	if *f = LogFormat(text); *f != "json" && *f != "text" {
		return fmt.Errorf("%q is not a log format; use json or text", text)
	}
	return nil
}

// NewLogHandler returns a handler that writes lines of the level and above to w. It writes
// durations with their unit, such as "1.5s".
func NewLogHandler(w io.Writer, level slog.Level, format LogFormat) slog.Handler {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if format == "text" {
		return slog.NewTextHandler(w, o)
	}
	return slog.NewJSONHandler(w, o)
}
