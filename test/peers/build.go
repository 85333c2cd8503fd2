package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// programsVariable names the directory in which tools/test has built mailcutover once for all
// packages: plain/mailcutover, and race/mailcutover with the race detector.
const programsVariable = "PEERS_PROGRAMS_DIR"

// Build builds a program of this module, such as ./cmd/mailcutover, with the race detector or
// without, and returns its file: one in dir, or the one that tools/test has built already.
func Build(ctx context.Context, dir, pkg string, race bool) (string, error) {
	name, kind := filepath.Base(pkg), "plain"
	if race {
		kind = "race"
	}
	if built := os.Getenv(programsVariable); built != "" {
		file := filepath.Join(built, kind, name)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	root, err := Root()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	file := filepath.Join(dir, name)
	args := []string{"build", "-o", file}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return file, nil
}
