window.reportPages = [
 {
  "name": "10_scale",
  "title": "10 · Scale"
 }
];
