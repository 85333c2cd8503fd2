package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Whatever a file holds, Load returns settings that Show can print and Load reads again
// as the same, or Problems that say something.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{configs + "/*.yaml", "testdata/bad/*/config.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no files %s: %v", pattern, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? [node]\n: x\n"))
	f.Add([]byte("<<: {node: x}\n"))
	f.Add([]byte("platforms: [{1: 2, id: a}]\n"))
	path := filepath.Join(f.TempDir(), "config.yaml")
	load := func(t *testing.T, text []byte) (*Config, error) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(path, []string{"REDIS_PASSWORD=x"})
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := load(t, text)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 || problems[0].Want == "" {
				t.Fatalf("error is %#v, want Problems", err)
			}
			return
		}
		if len(cfg.Admin.Tokens) > 0 {
			return // their hashes are shown cut short
		}
		shown := Show(cfg, true)
		again, err := load(t, []byte(shown))
		if err != nil {
			t.Fatalf("what Show printed can't be loaded: %v\n%s", err, shown)
		}
		if changes := Diff(cfg, again); len(changes) != 0 {
			t.Fatalf("loading what Show printed changes %v", changes)
		}
	})
}
