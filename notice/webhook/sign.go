package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// secretPrefix marks a secret that is written as base64.
const secretPrefix = "whsec_"

// minSecret is how many bytes a secret must have (Standard Webhooks 1.0.0 asks for 24 to 64).
const minSecret = 24

// ParseSecret returns the bytes of a secret: those in base64 behind "whsec_", or the text itself.
func ParseSecret(text string) ([]byte, error) {
	secret := []byte(text)
	if coded, ok := strings.CutPrefix(text, secretPrefix); ok {
		var err error
		if secret, err = base64.StdEncoding.DecodeString(coded); err != nil {
			return nil, errors.New("secret of a webhook: what follows whsec_ is not base64")
		}
	}
	if len(secret) < minSecret {
		return nil, fmt.Errorf("secret of a webhook: %d bytes: want %d at least", len(secret), minSecret)
	}
	return secret, nil
}

// sign returns the header webhook-signature: a signature by each secret.
func sign(secrets [][]byte, id string, at time.Time, body []byte) string {
	all := make([]string, len(secrets))
	for i, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		all[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(all, " ")
}
