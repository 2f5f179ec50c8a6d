package cli_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

const deployFolder = "../../deploy/"

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

var (
	variablePattern = regexp.MustCompile(`\b(TOLLGATE|DATABASE|STRIPE|SLACK|OIDC|OTEL|POSTGRES)_[A-Z_]+\b`)
	flagPattern     = regexp.MustCompile(`--([a-z-]+)`)
	filePattern     = regexp.MustCompile(`\b(deploy/|docs/)?[A-Za-z-]+\.(md|service|env|yaml|yml|conf)\b|\bCaddyfile\b|\bContainerfile\b`)
	// unset matches a setting that is a comment. It has no space after its #.
	unset          = regexp.MustCompile(`(?m)^ *#([A-Za-z_-]+[:=].*)$`)
	installPattern = regexp.MustCompile(`/(?:etc/(?:tollgate|systemd|caddy|nginx)|usr/local|var/lib/tollgate|var/www)[\w./-]*\w`)
)

// Flags of other programs, and files and variables of the image of PostgreSQL.
var foreign = []string{
	"chown", "interval", "timeout", "start-period", "retries", "username", "dbname", "env-file",
	"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE", "postgresql.service", "plans.yaml",
}

// Each variable, flag and file that a file of deploy/ names exists, and docs/deploy.md says how each
// installed file is installed.
func TestDeployFilesNameWhatExists(t *testing.T) {
	parser, _, _ := newParser(t)
	flags, variables := map[string]bool{}, map[string]bool{}
	err := kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			flags[flag.Name] = true
			for _, variable := range flag.Envs {
				variables[variable] = true
				variables[variable+"_FILE"] = flag.Tag.Has("secret")
			}
		}
		return next(nil)
	})
	if err != nil || !flags["config"] || !variables["DATABASE_URL_FILE"] {
		t.Fatalf("the flags are %v, and the variables %v, %v", flags, variables, err)
	}
	files, err := os.ReadDir(deployFolder)
	if err != nil {
		t.Fatal(err)
	}
	guide := read(t, "../../docs/deploy.md")
	named := 0
	for _, file := range files {
		if file.IsDir() {
			continue
		}
		text := read(t, deployFolder+file.Name())
		for _, variable := range variablePattern.FindAllString(text, -1) {
			named++
			if !variables[variable] && !slices.Contains(foreign, variable) {
				t.Errorf("%s names the variable %s", file.Name(), variable)
			}
		}
		for _, flag := range flagPattern.FindAllStringSubmatch(text, -1) {
			named++
			if !flags[flag[1]] && !slices.Contains(foreign, flag[1]) {
				t.Errorf("%s names the flag %s", file.Name(), flag[0])
			}
		}
		for _, path := range installPattern.FindAllString(unset.ReplaceAllString(text, ""), -1) {
			named++
			if !strings.Contains(guide, path) {
				t.Errorf("docs/deploy.md does not name %s, which %s names", path, file.Name())
			}
		}
		for _, name := range filePattern.FindAllString(text, -1) {
			named++
			place := deployFolder + name
			if strings.Contains(name, "/") {
				place = "../../" + name
			}
			if _, err := os.Stat(place); err != nil && !slices.Contains(foreign, name) {
				t.Errorf("%s names the file %s: %v", file.Name(), name, err)
			}
		}
		if !strings.Contains(guide, file.Name()) {
			t.Errorf("docs/deploy.md does not name deploy/%s", file.Name())
		}
	}
	if named < 50 {
		t.Errorf("only %d names were found", named)
	}
}

// Both example files are accepted, as they are and with all comments that are settings.
func TestDeployedSettings(t *testing.T) {
	for name, text := range map[string]string{
		"as it is": read(t, deployFolder+"tollgate.yaml"), "with all": unset.ReplaceAllString(read(t, deployFolder+"tollgate.yaml"), "$1"),
	} {
		s, _, err := parse(t, "--config", configFile(t, text))
		if err != nil || s.Database != "postgres:///tollgate?host=/run/postgresql" || len(s.TrustedProxies) != 1 {
			t.Errorf("tollgate.yaml, %s: %+v, %v", name, s, err)
		}
		if name == "with all" && (s.SlackBotToken == "" || s.LogFormat != "json") {
			t.Errorf("tollgate.yaml, %s: %+v", name, s)
		}
	}

	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("smtp://mail.example.com?from=tollgate@example.com\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(unset.ReplaceAllString(read(t, deployFolder+"tollgate.env"), "$1")) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if !found || strings.HasPrefix(name, "#") {
			continue
		}
		if strings.HasSuffix(name, "_FILE") {
			value = secret
		}
		t.Setenv(name, value)
	}
	if s, _, err := parse(t); err != nil || s.BaseURL != "https://tollgate.example.com" || s.SMTP == "" || s.StripeSecretKey == "" {
		t.Errorf("tollgate.env: %+v, %v", s, err)
	}
}

// In compose.yml, each name that a service uses is defined, and no service may do more than it needs.
func TestComposeFile(t *testing.T) {
	var file struct {
		Name     string
		Services map[string]*struct {
			Image, Restart string
			DependsOn      map[string]struct{ Condition string } `yaml:"depends_on"`
			Environment    map[string]string
			Secrets        []string
			Ports          []string
			Volumes        []string
			Networks       []string
			Tmpfs          []string
			Healthcheck    *struct {
				Test              []string
				Interval, Timeout string
				StartPeriod       string `yaml:"start_period"`
				Retries           int
			}
			ReadOnly    bool     `yaml:"read_only"`
			CapDrop     []string `yaml:"cap_drop"`
			CapAdd      []string `yaml:"cap_add"`
			SecurityOpt []string `yaml:"security_opt"`
			StopGrace   string   `yaml:"stop_grace_period"`
			ShmSize     string   `yaml:"shm_size"`
		}
		Secrets  map[string]struct{ File string }
		Networks map[string]any
		Volumes  map[string]any
	}
	decoder := yaml.NewDecoder(strings.NewReader(read(t, deployFolder+"compose.yml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil || len(file.Services) != 2 {
		t.Fatalf("%+v, %v", file, err)
	}
	for name, s := range file.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("%s may do more than it needs", name)
		}
		for on := range s.DependsOn {
			if other := file.Services[on]; other == nil || other.Healthcheck == nil {
				t.Errorf("%s depends on %s, which has no health check", name, on)
			}
		}
		for _, secret := range s.Secrets {
			if file.Secrets[secret].File == "" {
				t.Errorf("%s has the secret %s, which is not defined", name, secret)
			}
		}
		for variable, value := range s.Environment {
			if secret, ok := strings.CutPrefix(value, "/run/secrets/"); ok && !slices.Contains(s.Secrets, secret) {
				t.Errorf("%s of %s is the file of a secret that it does not have", variable, name)
			}
		}
		for _, network := range s.Networks {
			if _, ok := file.Networks[network]; !ok {
				t.Errorf("%s is in the network %s, which is not defined", name, network)
			}
		}
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			if _, ok := file.Volumes[source]; !ok {
				t.Errorf("%s has the volume %s, which is not defined", name, source)
			}
		}
	}
}

// The program has certificate authorities of its own, for an image without any. Go allows to set
// them only once.
func TestCertificateAuthorities(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("the program has no certificate authorities of its own")
		}
	}()
	x509.SetFallbackRoots(x509.NewCertPool())
}
