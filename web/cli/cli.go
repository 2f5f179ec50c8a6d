// Package cli has the commands of the operator, one file each, and the settings that they share
// with the server.
package cli

import (
	"context"
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

// Commands has all commands except serve, in the order of --help. kong calls the Run method of the
// given command.
type Commands struct {
	Demo         demoCommand          `cmd:"" help:"${help_demo}"`
	Migrate      migrateCommand       `cmd:"" help:"${help_migrate}"`
	SignIn       signInCommand        `cmd:"" help:"Print a one-time sign-in link for a person. It is valid for ten minutes."`
	APIKey       apiKeyCommands       `cmd:"" name:"apikey" help:"Manage API keys."`
	Organization organizationCommand  `cmd:"" help:"Manage organizations."`
	User         userCommands         `cmd:"" help:"Manage people."`
	Subscribe    subscribeCommand     `cmd:"" help:"${help_subscribe}"`
	Subscription subscriptionCommands `cmd:"" help:"List subscriptions, and end those that were assigned by hand."`
	Grant        grantCommand         `cmd:"" help:"Add included units for a person in the current billing period, and print the grant's ID."`
	Void         voidCommand          `cmd:"" help:"${help_void}"`
	Stripe       stripeCommands       `cmd:"" help:"Set up Stripe, and compare its totals with the recorded usage."`
	Backup       backupCommand        `cmd:"" help:"${help_backup}"`
	Verify       verifyCommand        `cmd:"" help:"Recount all usage records and reports from their events, and print each difference."`
	Healthcheck  healthcheckCommand   `cmd:"" help:"${help_healthcheck}"`
	Version      versionCommand       `cmd:"" help:"Print the version."`
}

// aboutRecords are the commands about data that was recorded before.
var aboutRecords = []string{"verify", "void", "user export", "user erase", "stripe reconcile"}

// Open opens the database for the given command. A command about recorded data does not create the
// default SQLite file: without --database or --config, it is probably about another database, and its
// answer about an empty one would mislead.
func Open(ctx context.Context, given *kong.Context, address string) (*models.DB, error) {
	command := given.Command() + " " // such as "user export <email> "
	isGiven := func(name string) bool { return strings.HasPrefix(command, name+" ") }
	if address == DefaultDatabase && slices.ContainsFunc(aboutRecords, isGiven) {
		return models.OpenExisting(ctx, address)
	}
	return models.Open(ctx, address)
}

// Output is where a command writes: results to Stdout, for scripts, and notes to Stderr, for
// people.
type Output struct{ Stdout, Stderr io.Writer }

// Print writes a line with what the command creates or lists.
func (o *Output) Print(line ...any) error {
	_, err := fmt.Fprintln(o.Stdout, line...)
	return err
}

// Note writes a line for people. Scripts do not need it.
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

// facts prints names and values, one fact a line.
func (o *Output) facts(facts [][2]string) error {
	w := tabwriter.NewWriter(o.Stdout, 0, 0, 2, ' ', 0)
	for _, f := range facts {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", f[0]+":", f[1])
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
		text, status = fmt.Sprintf("%s (see %s --help)", text, commandOf(usage)), 2
	}
	o.Note("tollgate: %s", text)
	return status
}

// commandOf returns the command whose arguments are wrong, such as "tollgate apikey create".
func commandOf(usage *kong.ParseError) string {
	if selected := usage.Context.Selected(); selected != nil {
		return selected.FullPath()
	}
	return usage.Context.Model.FullPath()
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

// Version returns the module's version, which the Go toolchain recorded at build time.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
