// Package cli has the commands of the operator, one file each, and the settings that they share with the server.
package cli

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"

	"tollgate/models"
)

// Commands are all commands but serve, in the order of --help. kong calls the Run method of the one that was given.
type Commands struct {
	Demo         demoCommand         `cmd:"" help:"Serve made-up people with half a year of history and live traffic. The database is temporary unless you give --database."`
	Migrate      migrateCommand      `cmd:"" help:"Update the database's schema. Every other command does this too."`
	SignIn       signInCommand       `cmd:"" help:"Print a link that signs a person in once, within ten minutes."`
	APIKey       apiKeyCommands      `cmd:"" name:"apikey" help:"Manage API keys."`
	Organization organizationCommand `cmd:"" help:"Manage organizations and their Slack teams."`
	User         userCommands        `cmd:"" help:"Manage people."`
	Subscribe    subscribeCommand    `cmd:"" help:"Assign a plan by hand, for example to a customer who is invoiced, and print the subscription's ID."`
	Stripe       stripeCommands      `cmd:"" help:"Set up Stripe, and compare with it."`
	Backup       backupCommand       `cmd:"" help:"Write a consistent copy of a SQLite database to a new file and print its name. The server may be running."`
	Verify       verifyCommand       `cmd:"" help:"Recount every record and report from its events, and print each difference."`
	Version      versionCommand      `cmd:"" help:"Print the version."`
}

// Output is where a command writes: results to Stdout, for scripts, and notes to Stderr, for the person at the shell.
type Output struct{ Stdout, Stderr io.Writer }

// Print writes a line that the command creates or lists.
func (o *Output) Print(line ...any) error {
	_, err := fmt.Fprintln(o.Stdout, line...)
	return err
}

// Note writes a line that a script need not read.
func (o *Output) Note(format string, args ...any) { _, _ = fmt.Fprintf(o.Stderr, format+"\n", args...) }

// printID prints the ID of what was created.
func (o *Output) printID(id uuid.UUID, err error) error {
	if err != nil {
		return err
	}
	return o.Print(id)
}

// table prints rows of tab-separated cells in columns.
func (o *Output) table(head string, rows int, row func(int) string) error {
	w := tabwriter.NewWriter(o.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, head)
	for i := range rows {
		_, _ = fmt.Fprintln(w, row(i))
	}
	return w.Flush()
}

// Exit prints the error, if any, and returns the exit status.
func (o *Output) Exit(err error) int {
	if err == nil {
		return 0
	}
	text, status := strings.ReplaceAll(err.Error(), "\n", "; "), 1
	if usage := (*kong.ParseError)(nil); errors.As(err, &usage) {
		text, status = text+" (see tollgate --help)", 2
	}
	o.Note("tollgate: %s", text)
	return status
}

// CheckUTF8 returns an error if an argument is not UTF-8.
func CheckUTF8(args []string) error {
	if i := slices.IndexFunc(args, func(arg string) bool { return !utf8.ValidString(arg) }); i >= 0 {
		return fmt.Errorf("argument %d is not UTF-8: %q", i+1, args[i])
	}
	return nil
}

func now() time.Time { return models.Now(time.Now) }

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(o *Output) error { return o.Print(Version()) }

// Version returns the module's version, as the Go toolchain recorded it at build time.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
