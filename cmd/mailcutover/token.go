package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
)

// newTokenCommand returns the command that makes a token for the API.
func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens for the API"}
	var name, person, out string
	create := &cobra.Command{
		Use: "new --name NAME --person PERSON", Short: "Make a token; it is printed once and kept nowhere", Args: cobra.NoArgs,
		Long: "Make a token for one person. The token itself is printed once, or written to a new file\n" +
			"that only its owner can read; the node's configuration gets only its SHA-256.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var b [32]byte
			_, _ = rand.Read(b[:]) // never fails, since Go 1.24
			secret := base64.RawURLEncoding.EncodeToString(b[:])
			digest := sha256.Sum256([]byte(secret))
			if out != "" {
				if err := writeNew(out, secret+"\n"); err != nil {
					err = fmt.Errorf("write the token: %w", err)
					if errors.Is(err, fs.ErrExist) {
						err = withHint(err, "no file is overwritten: name another, or move this one away")
					}
					return err
				}
				secret = ""
			}
			return newTokenOutput(cmd, name, person, secret, out, hex.EncodeToString(digest[:]))
		},
	}
	create.Flags().StringVar(&name, "name", "", "of the token, such as anna-laptop (required)")
	create.Flags().StringVar(&person, "person", "", "who is behind it; stands in every log (required)")
	create.Flags().StringVar(&out, "out", "", "new file to write the token to, instead of printing it")
	require(create, "name", "person")
	cmd.AddCommand(create)
	return cmd
}

// writeNew writes a file that must not exist yet.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(f, text); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func newTokenOutput(cmd *cobra.Command, name, person, secret, file, digest string) error {
	asJSON, err := cmd.Flags().GetBool("json")
	if err != nil {
		return err
	}
	c := &connection{json: asJSON}
	return c.show(cmd, struct {
		Name   string `json:"name"`
		Person string `json:"person"`
		Token  string `json:"token,omitempty"`
		File   string `json:"file,omitempty"`
		SHA256 string `json:"sha256"`
	}{name, person, secret, file, digest}, func(w io.Writer) {
		if file != "" {
			fmt.Fprintf(w, "token written to %s\n", file)
		} else {
			fmt.Fprintf(w, "token, shown only now:\n\n    %s\n", secret)
		}
		fmt.Fprintf(w, "\nadd this to the list admin.tokens of the node's configuration, and reload it:\n\n"+
			"    - name: %q\n      person: %q\n      sha256: %s\n\n"+
			"where there is no such list yet, these two lines go above it:\n\nadmin:\n  tokens:\n", name, person, digest)
	})
}
