package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
)

// unpacked returns a bundle's files.
func unpacked(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		files[path.Base(h.Name)] = string(b)
	}
}

const plantedLog = `{"level":"INFO","msg":"recipient","rcpt":"Anna.Berg@health.example","login":"DOM\\aberg","transaction":"T1"}
{"level":"INFO","msg":"again","rcpt":"anna.berg@health.example"}
level=INFO msg=login user=aberg session=7
Authorization: Bearer planted-token-1
{"url":"rediss://nodes:planted-password-2@redis.example:6379/0","password":"planted-password-3"}
requirepass planted-4 password = 'planted-password-5'
bind_password: planted-8
client_secret="planted 9, and planted-10" MAILCUTOVER_TOKEN=planted-11-planted-11-planted-11-planted-11
{"level":"WARN","msg":"said","error":"master_password=\"planted 12\" is wrong","passphrase":"planted \"13\", planted-14"}
AUTH PLAIN planted15planted= {"line":"a1 AUTHENTICATE PLAIN planted16"} Authorization: Basic planted17
-----BEGIN PRIVATE KEY-----
planted-key-6
-----END PRIVATE KEY-----
`

// A bundle has what helps, and none of what was planted.
func TestSupportBundle(t *testing.T) {
	const token = "planted-token-0"
	n := admintest.Start(t, func(o *admin.Options) {
		o.Tokens = func() []admin.Token {
			return []admin.Token{{Name: "t", Person: "Anna Berg", SHA256: sha256.Sum256([]byte(token)), Roles: []admin.Role{admin.RoleAdmin, admin.RoleOperator}}}
		}
		o.Config = func(bool) string {
			return "node: mx1\nurl: redis://u:planted-password-7@r/0\ntokens:\n  - name: t\n    sha256: abcdef01\npostmaster: post@health.example\n"
		}
	})
	n.Alarms.Raise("refused/ox/x", "mailbox carla@health.example was refused")
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, []byte(plantedLog), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(envToken, token)
	for _, with := range []bool{false, true} {
		file := filepath.Join(dir, "b.tar.gz")
		args := []string{"support", "bundle", file, "--log", log, "--api", n.URL}
		if with {
			file = filepath.Join(dir, "with.tar.gz")
			args = append(args[:2], file, "--log", log, "--api", n.URL, "--with-addresses")
		}
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, nil, &out, &errs); code != 0 {
			t.Fatalf("%d %s %s", code, out.String(), errs.String())
		}
		files := unpacked(t, file)
		for name, part := range map[string]string{
			"version.json": "{", "config.yaml": "node: mx1", "table.json": "{", "nodes.json": "{", "agencies.json": "{", "operations.json": "{", "spool.json": "{",
			"alarms.json": "was refused", "metrics.txt": "", "goroutines.txt": "goroutine profile", "audit-verify.txt": "the audit log is whole", "log.txt": `"transaction":"T1"`, "README.txt": "Support bundle",
		} {
			if got, ok := files[name]; !ok || !strings.Contains(got, part) {
				t.Errorf("%s: %.300q", name, got)
			}
		}
		for name, text := range files {
			for _, never := range []string{"planted", "abcdef01"} {
				if i := strings.Index(text, never); i >= 0 {
					t.Errorf("%s has a secret: %.60q", name, text[i:])
				}
			}
			for _, personal := range []string{"carla@", "Anna.Berg@", "anna.berg@", "aberg", "post@"} {
				if strings.Contains(text, personal) && !with {
					t.Errorf("%s has %s", name, personal)
				}
			}
		}
		if with {
			if !strings.Contains(files["log.txt"], "Anna.Berg@health.example") {
				t.Errorf("addresses are not as they are: %s", files["log.txt"])
			}
			continue
		}
		found := regexp.MustCompile(`p-[0-9a-f]{12}@health\.example`).FindAllString(files["log.txt"], -1)
		if len(found) != 2 || found[0] != found[1] {
			t.Errorf("pseudonyms of one address: %v", found)
		}
		if code := run(t.Context(), args, nil, &out, &errs); code == 0 {
			t.Error("a bundle is overwritten")
		}
	}
}
