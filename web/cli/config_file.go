package cli

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"tollgate/models"
)

// maxConfig is the maximum size of the file of --config, in bytes.
const maxConfig = 64 << 10

// configFile is the YAML file of --config: the names and values of flags that all commands share. A
// flag on the command line and a variable override it.
type configFile struct {
	name   string
	values map[*kong.Flag]string
}

// BeforeResolve reads the file of --config, if one is given, and lets kong use its values.
func (s *Settings) BeforeResolve(parser *kong.Kong, parsed *kong.Context) error {
	var name string
	for _, flag := range parsed.Model.Flags {
		if flag.Name == "config" {
			name, _ = parsed.FlagValue(flag).(string)
		}
	}
	if name == "" {
		return nil
	}
	c, open, err := readConfigFile(parser, name)
	if err != nil {
		return err
	}
	s.secretsOpen = open
	parsed.AddResolver(c)
	return nil
}

// readConfigFile reads and checks the file. secretsOpen reports whether the file has a secret and
// every user of the machine can read it.
func readConfigFile(parser *kong.Kong, name string) (_ *configFile, secretsOpen bool, err error) {
	f, err := os.Open(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, false, fmt.Errorf("--config or TOLLGATE_CONFIG: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("--config or TOLLGATE_CONFIG: %w", err)
	}
	src, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, false, fmt.Errorf("--config or TOLLGATE_CONFIG: %w", err)
	}
	root, err := models.ParseYAML(name, src, maxConfig)
	if err != nil {
		return nil, false, err
	}
	c := &configFile{name: name, values: map[*kong.Flag]string{}}
	if err := c.read(parser, root); err != nil {
		return nil, false, err
	}
	for flag, value := range c.values {
		secretsOpen = secretsOpen || isSecret(flag, value) && info.Mode().Perm()&0o004 != 0
	}
	return c, secretsOpen, nil
}

// read reads the file's keys. It returns all errors, each with its line.
func (c *configFile) read(parser *kong.Kong, root *yaml.Node) error {
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: must have the names of flags and their values, such as \"listen: 0.0.0.0:8080\"", c.name, root.Line)
	}
	flags := map[string]*kong.Flag{}
	for _, flag := range parser.Model.Flags {
		if flag.Name != "help" && flag.Name != "config" {
			flags[flag.Name] = flag
		}
	}
	var problems []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		flag, ok := flags[key.Value]
		_, twice := c.values[flag]
		var err error
		switch {
		case !ok:
			err = unknownKey(parser, flags, key.Value)
		case twice:
			err = fmt.Errorf("%q is given twice", key.Value)
		default:
			c.values[flag], err = flagValue(flag, value)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s:%d: %w", c.name, key.Line, err))
		}
	}
	return errors.Join(problems...)
}

// unknownKey returns an error that suggests what the key could mean.
func unknownKey(parser *kong.Kong, flags map[string]*kong.Flag, key string) error {
	for name, flag := range flags {
		for _, variable := range flag.Envs {
			if key == variable || key == variable+"_FILE" {
				return fmt.Errorf("%q is an environment variable; the key in this file is %q", key, name)
			}
		}
	}
	// kong has the suggestions: it compares the name with those of all flags.
	if traced, err := kong.Trace(parser, []string{"--" + key}); err == nil && traced.Error != nil {
		if _, suggestion, ok := strings.Cut(traced.Error.Error(), ", did you mean "); ok && strings.Contains(suggestion, "--") {
			return fmt.Errorf("unknown key %q, did you mean %s", key, strings.ReplaceAll(suggestion, "--", ""))
		}
	}
	return fmt.Errorf("unknown key %q", key)
}

// flagValue returns a value as it would be on the command line, if the flag can have it.
func flagValue(flag *kong.Flag, value *yaml.Node) (string, error) {
	values := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode && flag.IsSlice() {
		values = value.Content
	}
	texts := make([]string, len(values))
	for i, v := range values {
		if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
			if flag.IsSlice() {
				return "", fmt.Errorf("%q must have one value or a list of values", flag.Name)
			}
			return "", fmt.Errorf("%q must have one value", flag.Name)
		}
		texts[i] = v.Value
	}
	text := strings.Join(texts, ",") // kong's separator
	scan := kong.Scan().PushTyped(text, kong.FlagValueToken)
	err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, reflect.New(flag.Target.Type()).Elem())
	if err != nil {
		return "", fmt.Errorf("%q: %w", flag.Name, err)
	}
	return text, nil
}

// isSecret reports whether a value is secret. The address of a database is one only if it has a
// password.
func isSecret(flag *kong.Flag, value string) bool {
	if flag.Name != "database" {
		return flag.Tag.Has("secret") && value != ""
	}
	u, err := url.Parse(value)
	if err != nil || u.Query().Has("password") {
		return true
	}
	_, password := u.User.Password()
	return password
}

// Validate implements kong.Resolver. The file was checked when it was read.
func (c *configFile) Validate(*kong.Application) error { return nil }

// Resolve returns the file's value of a flag, unless a variable overrides it.
func (c *configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value, ok := c.values[flag]
	if !ok || inEnvironment(flag) {
		return nil, nil
	}
	return value, nil
}
