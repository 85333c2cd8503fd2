package config

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// maxSecretBytes bounds a password; a larger file is another one, by mistake.
const maxSecretBytes = 4 << 10

// secret reads the password that a _file or an _env key refers to.
func (d *decoder) secret(key string, file, env any, out reflect.Value) {
	before := len(d.problems)
	var path, name string
	if file != nil {
		d.leaf(key+"_file", file, reflect.ValueOf(&path).Elem())
	}
	if env != nil {
		d.leaf(key+"_env", env, reflect.ValueOf(&name).Elem())
	}
	defer func() {
		if len(d.problems) > before {
			d.bad[key] = true
		}
	}()
	if path != "" && name != "" {
		d.problem(Problem{Key: key + "_env", Value: fmt.Sprintf("%q", name), Want: "either " + key + "_file or " + key + "_env", Hint: "remove one of them"})
		return
	}
	var s Secret
	switch {
	case path != "":
		if !filepath.IsAbs(path) {
			path = filepath.Join(d.dir, path)
		}
		s = Secret{file: path, value: d.readSecret(key+"_file", path)}
	case name != "":
		d.passwordVariables = append(d.passwordVariables, name)
		s = Secret{env: name, value: d.env[name]}
		if s.value == "" {
			d.problem(Problem{Key: key + "_env", Value: fmt.Sprintf("%q", name), Want: "the name of an environment variable that is set"})
		}
	default:
		return
	}
	out.Set(reflect.ValueOf(s))
}

// readSecret returns the first line of a file.
func (d *decoder) readSecret(key, path string) string {
	f, err := os.Open(path)
	if err != nil {
		d.problem(Problem{Key: key, Value: fmt.Sprintf("%q", path), Want: "a file that can be read", Hint: reason(err)})
		return ""
	}
	defer f.Close()
	d.private(key, path, f)
	b, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		d.problem(Problem{Key: key, Value: fmt.Sprintf("%q", path), Want: "a file that can be read", Hint: reason(err)})
		return ""
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if text == "" || len(b) > maxSecretBytes || strings.ContainsAny(text, "\r\n\x00") {
		d.problem(Problem{Key: key, Value: fmt.Sprintf("%q", path), Want: "a file with one line, the password"})
		return ""
	}
	return text
}

// private reports a file with a secret that others than its owner may read.
func (d *decoder) private(key, path string, f *os.File) {
	info, err := f.Stat()
	if err != nil {
		d.problem(Problem{Key: key, Value: fmt.Sprintf("%q", path), Want: "a file that can be read", Hint: reason(err)})
		return
	}
	mode := info.Mode().Perm()
	p := Problem{Key: key, Value: fmt.Sprintf("%q (mode %04o)", path, mode), Want: "a file that only its owner can read", Hint: "chmod 600 " + path}
	switch {
	case mode&0o026 != 0:
		d.problem(p)
	case mode&0o040 != 0:
		d.warnings = append(d.warnings, p)
	}
}

// reason returns why a file couldn't be read, without its name.
func reason(err error) string {
	if pe, ok := err.(*fs.PathError); ok {
		return pe.Err.Error()
	}
	return err.Error()
}
