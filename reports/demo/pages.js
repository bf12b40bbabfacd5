window.reportPages = [
 {
  "name": "01_data_audit",
  "title": "1 · Data audit"
 },
 {
  "name": "02_augmentation",
  "title": "2 · Augmentation"
 },
 {
  "name": "03_training",
  "title": "3 · Training"
 },
 {
  "name": "04_evaluation",
  "title": "4 · Evaluation"
 },
 {
  "name": "05_ablations",
  "title": "5 · Ablations"
 },
 {
  "name": "06_compression",
  "title": "6 · Compression"
 },
 {
  "name": "07_gradcam",
  "title": "7 · Grad-CAM"
 },
 {
  "name": "08_robustness",
  "title": "8 · Robustness, fairness, privacy"
 },
 {
  "name": "09_claims",
  "title": "9 · Claims"
 }
];
