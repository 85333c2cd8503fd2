package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/routing"
)

// newTokenCommand returns the command that makes a token for the API.
func newTokenCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens for the API"}
	var name, person, out string
	var roles, agencies []string
	create := &cobra.Command{
		Use: "new --name NAME --person PERSON", Short: "Make a token; it is printed once and kept nowhere", Args: cobra.NoArgs,
		Long: "Make a token for one person. The token itself is printed once, or written to a new file\n" +
			"that only its owner can read; the node's configuration gets only its SHA-256.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := routing.ParsePlatformID(name); err != nil { // names of tokens have the same form
				return &usageError{command: "mailcutover token new", err: fmt.Errorf("--name %q: want 1 to 63 characters of a-z, 0-9 and hyphen, not beginning with a hyphen", name)}
			}
			if strings.TrimSpace(person) == "" {
				return &usageError{command: "mailcutover token new", err: fmt.Errorf("--person %q: want the name of who is behind it, as it is to stand in the log", person)}
			}
			for _, r := range roles {
				if !slices.Contains(admin.Roles(), admin.Role(r)) {
					return &usageError{command: "mailcutover token new", err: fmt.Errorf("--role %q: want one or more of %s", r, strings.Join(roleNames(), ", "))}
				}
			}
			var b [32]byte
			_, _ = rand.Read(b[:]) // never fails, since Go 1.24
			secret := base64.RawURLEncoding.EncodeToString(b[:])
			digest := sha256.Sum256([]byte(secret))
			if out != "" {
				if err := writeNew(out, secret+"\n"); err != nil {
					return notOverwritten(fmt.Errorf("write the token: %w", err))
				}
				secret = ""
			}
			return showToken(cmd, c, token{name, person, roles, agencies, secret, out, hex.EncodeToString(digest[:])})
		},
	}
	create.Flags().StringVar(&name, "name", "", "of the token, such as anna-laptop (required)")
	create.Flags().StringVar(&person, "person", "", "who is behind it; stands in every log (required)")
	create.Flags().StringVar(&out, "out", "", "new file to write the token to, instead of printing it")
	create.Flags().StringSliceVar(&roles, "role", nil, "what it may do: "+strings.Join(roleNames(), ", ")+"; may be repeated (required outside a lab)")
	create.Flags().StringSliceVar(&agencies, "agency", nil, "agency that it may act on; may be repeated (default: all)")
	require(create, "name", "person")
	show := c.command(&cobra.Command{Use: "show", Short: "Whose token this is, and what it may be used for", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			me, err := client.Me(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, me, func(w io.Writer) {
				pairs(w, [2]string{"token", me.Token}, [2]string{"person", me.Person}, [2]string{"roles", firstOf(strings.Join(me.Roles, ", "), "everything: it is a lab")},
					[2]string{"agencies", firstOf(strings.Join(me.Agencies, ", "), "all")})
			})
		})
	cmd.AddCommand(create, show)
	return cmd
}

func roleNames() []string {
	var names []string
	for _, r := range admin.Roles() {
		names = append(names, string(r))
	}
	return names
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

// token is one that was just made.
type token struct {
	Name     string   `json:"name"`
	Person   string   `json:"person"`
	Roles    []string `json:"roles,omitempty"`
	Agencies []string `json:"agencies,omitempty"`
	Token    string   `json:"token,omitempty"`
	File     string   `json:"file,omitempty"`
	SHA256   string   `json:"sha256"`
}

func showToken(cmd *cobra.Command, c *connection, t token) error {
	return c.show(cmd, t, func(w io.Writer) {
		if t.File != "" {
			fmt.Fprintf(w, "token written to %s\n", t.File)
		} else {
			fmt.Fprintf(w, "token, shown only now:\n\n    %s\n", t.Token)
		}
		fmt.Fprintf(w, "\nadd this to the list admin.tokens of the node's configuration, and reload it:\n\n"+
			"    - name: %q\n      person: %q\n      sha256: %s\n", t.Name, t.Person, t.SHA256)
		if len(t.Roles) > 0 {
			fmt.Fprintf(w, "      roles: [%s]\n", strings.Join(t.Roles, ", "))
		}
		if len(t.Agencies) > 0 {
			fmt.Fprintf(w, "      agencies: [%s]\n", strings.Join(t.Agencies, ", "))
		}
		fmt.Fprint(w, "\nwhere there is no such list yet, these two lines go above it:\n\nadmin:\n  tokens:\n")
	})
}
