//go:build linux

package e2e_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// imageUser is the user of the image, who is not root.
const imageUser = 65532

// image is what `make image` wrote: the settings, and the root, unpacked.
type image struct {
	root   string
	config struct {
		User, WorkingDir     string
		Env, Entrypoint, Cmd []string
		Volumes              map[string]struct{}
		ExposedPorts         map[string]struct{}
		Healthcheck          struct{ Test []string }
	}
}

// The program runs in the image's root as the image's user, with nothing around it: no shell, no
// /etc, no /proc. It can write only to its volume.
func TestImage(t *testing.T) {
	t.Parallel()
	i := unpack(t, makeImage(t))
	if want := fmt.Sprintf("%d:%[1]d", imageUser); i.config.User != want {
		t.Fatalf("the user is %q, want %q", i.config.User, want)
	}
	var files []string
	err := fs.WalkDir(os.DirFS(i.root), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) != 1 || files[0] != "tollgate" {
		t.Errorf("the files are %q, %v; want only the program", files, err)
	}
	if _, ok := i.config.Volumes[i.config.WorkingDir]; !ok || len(i.config.Volumes) != 1 {
		t.Errorf("the volumes are %v, and the working folder is %q", i.config.Volumes, i.config.WorkingDir)
	}
	if _, ok := i.config.ExposedPorts["8080/tcp"]; !ok || !strings.Contains(strings.Join(i.config.Env, " "), "TOLLGATE_LISTEN=0.0.0.0:8080") {
		t.Errorf("the ports are %v, and the variables %q", i.config.ExposedPorts, i.config.Env)
	}
	health := i.config.Healthcheck.Test
	if len(health) < 2 || health[0] != "CMD" {
		t.Fatalf("the health check is %q", health)
	}

	p := newServer(t, "the image", "")
	listen := "TOLLGATE_LISTEN=" + p.addr // not the image's, since tests share this machine's ports
	command := func(args ...string) (output string, err error) {
		t.Helper()
		cmd := i.command(t, listen, args)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		r, err := launch(cmd)
		if err != nil {
			t.Fatal(err)
		}
		<-r.exited
		if r.err != nil {
			return "", fmt.Errorf("%q: %w: %s", args, r.err, &errs)
		}
		return strings.TrimSpace(out.String()), nil
	}
	key, err := command(append(i.config.Entrypoint, "apikey", "create", "--name", "e2e", "--scopes", "consume")...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command(health[1:]...); err == nil {
		t.Error("without a server, the health check succeeds")
	}
	p.command = func() *exec.Cmd { return i.command(t, listen, append(i.config.Entrypoint, i.config.Cmd...)) }
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := command(health[1:]...); err != nil {
		t.Errorf("the health check: %v", err)
	}
	d, err := newClient(key).call(t.Context(), p.addr, http.MethodPost, "/v1/consume",
		body{"email": "ada@example.com", "idempotency_key": "message-1"}).decision()
	if err != nil || !d.Allowed || d.Used != 1 {
		t.Errorf("decided %+v, %v", d, err)
	}
	if _, err := p.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(i.root, i.config.WorkingDir, "tollgate.db")); err != nil {
		t.Errorf("the volume has no database: %v", err)
	}
	if _, err := command(append(i.config.Entrypoint, "migrate", "--database", "sqlite:/tollgate.db")...); err == nil {
		t.Error("the program can write outside its volume")
	}
}

// command returns a command that runs in the image's root as the image's user. If the tests do not
// run as root, their user becomes the image's user in a new user namespace.
func (i *image) command(t *testing.T, variable string, args []string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), args[0], args[1:]...)
	cmd.Dir, cmd.Env = i.config.WorkingDir, slices.Concat(i.config.Env, []string{variable, noDrain})
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: i.root}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: imageUser, Gid: imageUser}
		return cmd
	}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: imageUser, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: imageUser, HostID: os.Getgid(), Size: 1}}
	return cmd
}

// makeImage runs `make image` with the tests' program and returns the file.
func makeImage(t *testing.T) string {
	t.Helper()
	dist := t.TempDir()
	content, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dist, "tollgate-linux-"+runtime.GOARCH)
	if err := os.WriteFile(binary, content, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "make", "-C", "../..", "image", "DIST="+dist, "SYSTEMS=linux-"+runtime.GOARCH,
		"--old-file="+binary)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, output)
	}
	return filepath.Join(dist, "tollgate-image-"+runtime.GOARCH+".tar")
}

// unpack reads an image in the format of `docker save`: a list of JSON files and layers, in which a
// later one replaces files of an earlier one.
func unpack(t *testing.T, archive string) *image {
	t.Helper()
	files := map[string][]byte{}
	entries(t, bytes.NewReader(readFile(t, archive)), func(h *tar.Header, content []byte) { files[h.Name] = content })
	var manifest []struct {
		Config string
		Layers []string
	}
	i := &image{root: filepath.Join(t.TempDir(), "root")}
	var settings struct{ Config any }
	settings.Config = &i.config
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("%s: %v", files["manifest.json"], err)
	}
	if err := json.Unmarshal(files[manifest[0].Config], &settings); err != nil {
		t.Fatalf("%s: %v", files[manifest[0].Config], err)
	}
	if err := os.Mkdir(i.root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, layer := range manifest[0].Layers {
		entries(t, bytes.NewReader(files[layer]), func(h *tar.Header, content []byte) {
			path := filepath.Join(i.root, filepath.Clean("/"+h.Name))
			var err error
			switch h.Typeflag {
			case tar.TypeDir:
				err = os.MkdirAll(path, h.FileInfo().Mode().Perm())
			case tar.TypeReg:
				err = os.WriteFile(path, content, h.FileInfo().Mode().Perm())
			default:
				err = fmt.Errorf("%s has the type %q", h.Name, h.Typeflag)
			}
			if err == nil && os.Getuid() == 0 {
				err = os.Chown(path, h.Uid, h.Gid)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	// Without root, the image's user owns all folders.
	if err := os.Chmod(i.root, 0o555); err != nil {
		t.Fatal(err)
	}
	return i
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// entries calls f for each entry of an archive.
func entries(t *testing.T, archive io.Reader, f func(h *tar.Header, content []byte)) {
	t.Helper()
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		f(h, content)
	}
}
