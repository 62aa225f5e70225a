/* SPDX-License-Identifier: MIT */
typedef int placeholder;
int main(void){return 0;}
