// Receives webhooks, and believes those that are signed (Standard Webhooks, https://www.standardwebhooks.com), with
// nothing but Go's own library.
//
// WEBHOOK_SECRET=whsec_… go run receive.go 8080
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const tolerance = 300 // seconds: an old message is somebody's who kept it

var seen sync.Map // of a database, where it is to outlive the process

func key(secret string) []byte {
	encoded, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return []byte(secret)
	}
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		log.Fatal(err)
	}
	return decoded
}

func isGenuine(key []byte, header http.Header, body []byte) bool {
	sent, err := strconv.ParseInt(header.Get("webhook-timestamp"), 10, 64)
	if age := time.Now().Unix() - sent; err != nil || age > tolerance || age < -tolerance {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.", header.Get("webhook-id"), sent)
	mac.Write(body)
	wanted := mac.Sum(nil)
	// While a secret is renewed there is more than one.
	for _, part := range strings.Fields(header.Get("webhook-signature")) {
		encoded, ok := strings.CutPrefix(part, "v1,")
		given, err := base64.StdEncoding.DecodeString(encoded)
		if ok && err == nil && hmac.Equal(given, wanted) {
			return true
		}
	}
	return false
}

func main() {
	key := key(os.Getenv("WEBHOOK_SECRET"))
	http.HandleFunc("POST /", func(response http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, 1<<20))
		if err != nil || !isGenuine(key, request.Header, body) {
			response.WriteHeader(http.StatusUnauthorized)
			return
		}
		// The same id: the same message, sent again.
		if _, again := seen.LoadOrStore(request.Header.Get("webhook-id"), true); !again {
			var event struct{ Type string }
			if err := json.Unmarshal(body, &event); err == nil {
				fmt.Println("received", event.Type)
			}
		}
		response.WriteHeader(http.StatusNoContent)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
